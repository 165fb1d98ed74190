import { describe, expect, it } from "vitest";
import { callsIn, owner, sh, until } from "../support.ts";

const sandbox = "left-behind";

const { command: run } = callsIn(sandbox);

/** Megabytes that the files of runs use on the sandbox's disk, deleted but open files included. */
const onDisk = async () =>
  Number((await sh(sandbox, "df -m --output=used /var/lib/sandbox-mcp | tail -1")).trim());

describe("a background process of a command", () => {
  it("can print without limit and uses no disk, whatever its process group and variables", async () => {
    const before = await onDisk();
    const print = (name: string) =>
      `sleep 0.5; head -c 50000000 /dev/zero | tr "\\0" x; touch /tmp/printed-${name}; exec sleep 3100`;
    const result = await run(
      `(${print("a")}) & setsid bash -c '${print("b")}' & env -i setsid bash -c '${print("c")}' & echo begun`,
    );
    expect(result.structured).toMatchObject({ state: "succeeded", stdout: "begun\n" });
    await until(async () => (await sh(sandbox, "ls /tmp | grep -c printed || true")) === "3\n");
    await until(async () => (await onDisk()) - before < 8);
    // The server deletes the files of these runs, which stay open.
    for (let n = 0; n < 20; n++) await run("true");
    expect((await onDisk()) - before).toBeLessThan(8);
    await sh(sandbox, "pkill -f 'sleep 3100'");
  });

  it("continues after its command's end, even if both print faster than the server reads", async () => {
    const result = await run("yes b & (sleep 0.3; kill -KILL $$) & wait");
    expect(result.structured).toMatchObject({ exit_code: 137 });
    await until(async () => /^[RS]/.test(await sh(sandbox, "ps -o stat= -C yes")));
    await sh(sandbox, "pkill -x yes");
  });

  it.each([
    ["a child", "sleep 0.5 & echo $!"],
    ["an orphan", "(setsid bash -c 'sleep 0.5 & echo $!')"],
  ])("is removed from the process table after its end: %s", async (_what, line) => {
    const pid = (await sh(sandbox, line)).trim();
    await until(async () => (await run(`kill -0 ${pid}`)).structured.state === "failed");
    expect((await run(`kill -0 ${pid}`)).text).toContain("No such process");
  });

  it("loses only the output that it prints after its command's end", async () => {
    const { structured, text } = await run(
      "seq 1000000; (sleep 1; yes | head -c 30000000; sleep 1) & echo the end",
    );
    expect(String(structured.stdout).endsWith("1000000\nthe end\n")).toBe(true);
    expect(structured.stdout_bytes).toBe(6_888_896 + 8);
    const id = /[a-z-]+\.[0-9a-z]{26}/.exec(text)?.[0];
    const log = await owner.call("get_result", { id, cursor: 6_888_880 });
    expect(log.text).toContain("1000000\nthe end\n");
    expect(log.text).toContain("This is the end of the log.");
  });

  it("does not cut its command's output, however the command writes it", async () => {
    const { text } = await run(
      "sleep 3101 & seq 20000; echo appended >>/dev/stdout; echo went wrong >>/dev/stderr",
    );
    expect(text).toContain("20000\nappended\n");
    expect(text).toContain("went wrong\n");
    await sh(sandbox, "pkill -f 'sleep 3101'");
  });
});
