/**
 * The platform or code ends a container or the server's programs in it. The platform sends SIGTERM long before it ends a container:
 * the server saves the workspace, and commands get SIGTERM.
 */
import { beforeAll, describe, expect, it } from "vitest";
import { idIn } from "../setup/mcp-client.ts";
import { endLater } from "../setup/end-later.ts";
import { until } from "../setup/until.ts";
import { startFaultServer } from "./support.ts";

const server = endLater(await startFaultServer());

const state = async (name: string) => {
  const { structured } = await server.call("list_sandboxes");
  const listed = structured.sandboxes as { name: string; state: string }[];
  return listed.find((one) => one.name === name)?.state;
};

describe.concurrent("when the platform or code ends a sandbox's container or sandboxd", () => {
  it("the server saves a file that was written just before the end", async () => {
    const sandbox = "written";
    await server.sh("true", { sandbox });
    const first = await server.firstPID(sandbox);
    await server.call("write_file", { sandbox, path: "last", content: "acknowledged" });
    process.kill(first, "SIGTERM");
    await until(async () => (await state(sandbox)) === "stopped");
    const next = await server.call("run_command", { sandbox, command: "cat last" });
    expect(next.structured.stdout).toBe("acknowledged");
    expect(next.text).toContain("The platform replaced the sandbox's container");
  });

  it.each([
    ["without sandboxd's token", ""],
    ["with sandboxd's token", '-H "x-sandboxd-token: $(cat /run/sandbox/token)"'],
  ])("the server refuses a forged report of the container's end: %s", async (_, token) => {
    const sandbox = "lied";
    const report = `curl -s -o /dev/null -w '%{http_code}' ${token} -X POST http://sandbox-mcp.internal/ending`;
    expect(await server.sh(report, { sandbox })).toBe("404");
    expect((await server.call("run_code", { sandbox, code: "6 * 7" })).text).toContain("42");
  });

  it("the sandbox works again after its code killed sandboxd", async () => {
    const sandbox = "ended-alone";
    const code = (text: string) => server.call("run_code", { sandbox, code: text });
    const interrupted = await code(
      "import os, time\nfor pid in filter(str.isdigit, os.listdir('/proc')):\n  if open(f'/proc/{pid}/comm').read() == 'sbxd\\n': os.kill(int(pid), 12)\ntime.sleep(60)",
    );
    expect(interrupted.text).toMatch(/was stopped during its run.*is replacing/s);
    await until(async () => (await code("6 * 7")).text.includes("42"));
  });

  it("commands get SIGTERM, and the server saves the files that they then write", async () => {
    const sandbox = "told";
    const command = "trap 'echo told >told; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    const run = await server.call("run_command", { sandbox, command, wait_seconds: 0 });
    await until(async () =>
      (await server.call("get_result", { id: idIn(run), wait_seconds: 0 })).text.includes("ready"),
    );
    process.kill(await server.firstPID(sandbox), "SIGTERM");
    await until(async () => (await state(sandbox)) === "stopped");
    expect((await server.call("get_result", { id: idIn(run) })).structured).toMatchObject({ exit_code: 5 });
    expect(await server.sh("cat told", { sandbox })).toBe("told\n");
  });

  it("the server saves the files of every completed run_code, and runs what had not begun in the next container", async () => {
    const sandbox = "coded";
    const writeManyFiles =
      "for n in range(1500): open(f'/workspace/many{n}', 'wb').write(os.urandom(20_000))";
    await server.call("run_code", { sandbox, code: `import os\n${writeManyFiles}` });
    const first = await server.firstPID(sandbox);
    const code = (text: string, context: string) => server.call("run_code", { sandbox, code: text, context });
    const endless = code(
      "import time\nopen('/tmp/begun', 'w').close()\nwhile True: time.sleep(0.01)",
      "endless",
    );
    await server.sh("until [ -e /tmp/begun ]; do sleep 0.05; done", { sandbox });
    process.kill(first, "SIGTERM");
    const answered: number[] = [];
    for (let isNext = false; !isNext;) {
      const n = answered.length;
      const { structured, text } = await code(`open("/workspace/c${n}", "w").close()`, "default");
      if (structured.state === "succeeded") answered.push(n);
      isNext = text.includes("replaced the sandbox");
    }
    expect((await endless).text).toMatch(/stopped during (its|this) run/);
    const files = (await server.sh("ls", { sandbox })).split("\n");
    expect(files).toEqual(expect.arrayContaining(answered.map((n) => `c${n}`)));
  });

  it("the server starts nothing new while the container ends, and its error says that the platform replaces the container", async () => {
    const sandbox = "late";
    // Ignores SIGTERM, so that the container ends slowly.
    await server.call("run_command", { sandbox, command: "trap '' TERM; sleep 60", wait_seconds: 0 });
    process.kill(await server.firstPID(sandbox), "SIGTERM");
    const refused = await until(async () => {
      const { text } = await server.call("run_command", { sandbox, session: "b", command: "echo ran" });
      return text.includes("replac") && text;
    });
    expect(refused).toMatch(/[Tt]he platform (is replacing|replaced)/);
    await until(
      async () =>
        (await server.call("run_command", { sandbox, command: "echo ran" })).structured.stdout === "ran\n",
    );
  });
});

/** Starts a command in another session, which prints increasing numbers until there is a file `stop`. */
async function startRun(sandbox: string) {
  await server.sh("rm -f stop; echo there >/tmp/before", { sandbox });
  const command = "for ((i = 0; ; i++)); do echo $i; [ -e stop ] && exit 3; sleep 0.1; done";
  const run = await server.call("run_command", { sandbox, session: "long", command, wait_seconds: 0 });
  const id = idIn(run);
  const lines = async () => {
    const { text } = await server.call("get_result", { id, cursor: 0, wait_seconds: 0 });
    return text.match(/^\d+$/gm) ?? [];
  };
  const ended = () =>
    until(async () => {
      const { structured } = await server.call("get_result", { id, wait_seconds: 30 });
      return structured.state === "running" ? undefined : structured;
    });
  await until(async () => (await lines()).length > 0);
  return { lines, ended };
}

/**
 * Checks that the container was not replaced (a file outside the workspace still exists), and that commands, files
 * and code work.
 */
async function expectServed(sandbox: string): Promise<void> {
  expect(
    (await server.call("write_file", { sandbox, path: "after", content: "written" })).structured.size,
  ).toBe(7);
  // The command may also have killed the kernel, which is the user's process. The first call then reports that.
  await until(async () => (await server.call("run_code", { sandbox, code: "6 * 7" })).text.includes("42"));
  // Checked last: in a container that is ending, commands work for a while, but code does not if the control server was killed.
  expect(await server.sh("cat /tmp/before", { sandbox })).toBe("there\n");
}

// These tests share a sandbox and a run.
describe("when a command kills processes by name", () => {
  const sandbox = "named";
  let run: Awaited<ReturnType<typeof startRun>>;
  beforeAll(async () => {
    run = await startRun(sandbox);
  });

  it.each([
    ["pkill -f sandbox"],
    ["pkill -9 -f bash"],
    ["pkill -9 -f /bin"],
    ["pkill -9 tee; pkill -9 -x sh; pkill -f keeper"],
    ["pkill -9 -f node"],
    ["pkill -f /opt"],
    ["pkill -9 -f /var/lib"],
    ["pkill init; pkill -f init"],
  ])("another run continues if no program of the server has that name: %s", async (kill) => {
    await server.call("run_command", { sandbox, command: kill });
    await expectServed(sandbox);
    const { length } = await run.lines();
    await expect.poll(async () => (await run.lines()).length).toBeGreaterThan(length);
  });

  it("the output of the other run is complete", async () => {
    await server.call("write_file", { sandbox, path: "stop", content: "" });
    expect(await run.ended()).toMatchObject({ state: "failed", exit_code: 3 });
    const lines = await run.lines();
    expect(lines).not.toEqual([]);
    expect(lines).toEqual(lines.map((_, index) => String(index)));
  });

  it.each([
    ["kill -9 -1"],
    ["for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = $$ ] || kill -9 $p; done; kill -9 $$"],
    ["for n in 1 2 3; do pkill -9 -x 'sbx.*'; sleep 0.3; done"],
  ])(
    "other runs end and the next calls work, even if the command kills every process or every program of the server: %s",
    async (kill) => {
      const { ended } = await startRun(sandbox);
      await server.call("run_command", { sandbox, command: kill });
      expect(await ended()).toMatchObject({ state: "failed", exit_code: 137 });
      await expectServed(sandbox);
    },
  );
});

// Each test has its own sandbox.
describe.concurrent("when a command kills processes by name", () => {
  it.each(["python", "javascript"])("code keeps its variables after pkill -f /opt: %s", async (language) => {
    const sandbox = `of-${language}`;
    const code = (text: string) => server.call("run_code", { sandbox, language, code: text });
    await code("kept = 41");
    await server.call("run_command", { sandbox, command: "pkill -f /opt" });
    expect((await code("kept + 1")).text).toContain("42");
  });

  it("files remain after pkill -u root, and the next calls work", async () => {
    const sandbox = "everybody";
    await server.sh("echo there >/tmp/before", { sandbox });
    for (let round = 0; round < 3; round++) {
      await server.call("run_command", { sandbox, command: "pkill -u root" });
      await until(
        async () =>
          (await server.call("run_command", { sandbox, command: "true" })).structured.exit_code === 0,
      );
    }
    await expectServed(sandbox);
    expect(await server.sh("cat after", { sandbox })).toBe("written");
  });
});
