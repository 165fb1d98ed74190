/** If our daemon sandboxd is killed in a sandbox, it is restarted and takes over the runs. */
import { describe, expect, it } from "vitest";
import { callsIn, evict, idIn, owner, waitForText, sh, sleep } from "../support.ts";

const sandbox = "killed-sandboxd";

const { command: run, code } = callsIn(sandbox);

/** Kills sandboxd from another session. The next sandboxd reports the end of that command. */
const kill = () => run("pkill -9 -x sbxd", { session: "killer" });

describe("the next sandboxd after a kill", () => {
  it("does not block on a pipe that user code put in place of its files", async () => {
    await run("mkfifo /var/lib/sandbox-mcp/sessions/piped; mkdir -p /var/lib/sandbox-mcp/runs/aaa");
    await run("mkfifo /var/lib/sandbox-mcp/runs/aaa/end");
    expect((await run("echo works", { session: "piped" })).structured).toMatchObject({ stdout: "works\n" });
    await kill();
    expect((await run("echo works")).structured).toMatchObject({ stdout: "works\n" });
    await run("rm -rf /var/lib/sandbox-mcp/runs/aaa");
  });

  it("reports the end and the session of the command that killed sandboxd", async () => {
    const result = await run("cd /tmp; export KEPT=1; pkill -9 -x sbxd; echo after; exit 3", {
      session: "own",
    });
    expect(result.structured).toMatchObject({ exit_code: 3, stdout: "after\n" });
    expect((await run("echo $PWD $KEPT", { session: "own" })).structured).toMatchObject({
      stdout: "/tmp 1\n",
    });
  });
});

describe("code in a kernel, when sandboxd is killed", () => {
  it.each([
    [
      "python",
      "import time\nfor part in range(4):\n  for n in range(10000): print(f'number {part * 10000 + n:08}')\n  time.sleep(0.3)",
    ],
    [
      "javascript",
      "for (let part = 0; part < 4; part++) { for (let n = 0; n < 10000; n++) console.log('number ' + String(part * 10000 + n).padStart(8, '0')); await require('timers/promises').setTimeout(300) }",
    ],
  ])("continues to print, and its output is neither lost nor repeated: %s", async (language, text) => {
    const id = idIn(await code(text, { language, wait_seconds: 0 }));
    for (let n = 0; n < 2; n++) {
      await sleep(300 + 100 * n);
      await kill();
    }
    const ended = await owner.call("get_result", { id });
    expect(ended.structured).toMatchObject({ state: "succeeded", stdout_bytes: 40_000 * 16 });
    expect(String(ended.structured.stdout).endsWith("number 00039999\n")).toBe(true);
  });

  it("is stopped together with its processes at its deadline", async () => {
    const { text } = await code(
      "import os, subprocess, time\nsubprocess.Popen(['sleep', '3620'], env={}, start_new_session=True)\nprint('begun')\nos.system('pkill -9 -x sbxd')\ntime.sleep(60)",
      { timeout_seconds: 2 },
    );
    expect(text).toMatch(/state: timed_out[^]*are kept[^]*begun/);
    expect(await sh(sandbox, "pgrep -fc '^sleep 3620$' || true")).toBe("0\n");
  });

  it("has a result that says that the kernel died", async () => {
    const { text } = await code("import os\nprint('last')\nos.system('pkill -9 -x sbxd')\nos._exit(3)");
    expect(text).toMatch(/kernel died[^]*last/);
  });
});

describe("a sandboxd", () => {
  it("starts commands again after user code has made its free slots unusable", async () => {
    const own = "unusable-slots";
    await sh(own, "for go in /var/lib/sandbox-mcp/slots/*/go; do rm $go; mkdir $go; done");
    for (let n = 0; n < 10; n++) await run("true", { sandbox: own });
    expect(await sh(own, "echo works")).toBe("works\n");
    await owner.call("destroy_sandbox", { sandbox: own });
  });

  it("gets no requests of programs in its sandbox, also after its actor's eviction", async () => {
    const ask = "curl -s http://127.0.0.1:8671/; echo $?";
    const noResponse = "52\n";
    expect(await sh(sandbox, ask)).toBe(noResponse);
    await evict(sandbox);
    expect(await sh(sandbox, ask)).toBe(noResponse);
    const written = await owner.call("write_file", { sandbox, path: "let-in", content: "written" });
    expect(written.structured).toMatchObject({ size: 7 });
  });
});

it("the output of code is read while the code runs", async () => {
  const text =
    "import time\nprint('first'); time.sleep(0.5)\nfor n in range(600): print(n); time.sleep(0.05)";
  const started = await owner.call("run_code", { sandbox, code: text, wait_seconds: 0 });
  const id = idIn(started);
  await waitForText(id, "first\n0\n1\n2\n");
  expect((await owner.call("cancel_run", { id })).structured.stdout).toMatch(/^first\n0\n1\n2\n/);
});
