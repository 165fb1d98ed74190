/** A command kills processes by name, and the sandbox still works. */
import { beforeAll, describe, expect, it } from "vitest";
import { idIn } from "../setup/mcp-client.ts";
import { until } from "../setup/until.ts";
import { type FaultServer, startFaultServer } from "./support.ts";

let server: FaultServer;
beforeAll(async () => {
  server = await startFaultServer();
  return () => server.close();
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
  expect(await server.sh("cat /tmp/before", { sandbox })).toBe("there\n");
  expect(
    (await server.call("write_file", { sandbox, path: "after", content: "written" })).structured.size,
  ).toBe(7);
  // The command may also have killed the kernel, which is the user's process. The first call then reports that.
  await until(async () => (await server.call("run_code", { sandbox, code: "6 * 7" })).text.includes("42"));
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
    expect(await server.sh("cat /tmp/before", { sandbox })).toContain("there");
    await expectServed(sandbox);
  });
});
