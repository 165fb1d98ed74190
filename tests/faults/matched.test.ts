/** A command kills processes by name: our programs and other runs survive. */
import { createHash } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { idIn } from "../setup/mcp-client.ts";
import { until } from "../setup/until.ts";
import { type FaultServer, startFaultServer } from "./support.ts";

let server: FaultServer;
beforeAll(async () => {
  server = await startFaultServer();
  return () => server.close();
});

/** A sandbox's name, derived from a command. */
const nameOf = (command: string) => `a${createHash("sha256").update(command).digest("hex").slice(0, 12)}`;

const LINES = Array.from({ length: 40 }, (_, index) => String(index));

/** Runs a command that prints LINES in another session during `during`. Returns its result and its lines. */
async function runDuring(sandbox: string, during: () => Promise<unknown>) {
  const command = "for i in {0..39}; do echo $i; sleep 0.1; done; exit 3";
  const run = await server.call("run_command", { sandbox, session: "long", command, wait_seconds: 0 });
  const read = (wait_seconds: number) =>
    server.call("get_result", { id: idIn(run), cursor: 0, wait_seconds });
  await until(async () => (await read(0)).text.includes("\n3\n"));
  await during();
  await until(
    async () =>
      (await server.call("get_result", { id: idIn(run), wait_seconds: 30 })).structured.state !== "running",
  );
  const { structured } = await server.call("get_result", { id: idIn(run), wait_seconds: 0 });
  return { structured, lines: (await read(0)).text.match(/^\d+$/gm) };
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

// Each test has its own sandbox.
describe.concurrent("when a command kills processes by name", () => {
  it.each([
    ["pkill -f sandbox"],
    ["pkill -9 -f bash"],
    ["pkill -9 -f /bin"],
    ["pkill -9 tee; pkill -9 -x sh; pkill -f keeper"],
    ["pkill -9 -f node"],
    ["pkill -f /opt"],
    ["pkill -9 -f /var/lib"],
    ["pkill init; pkill -f init"],
  ])("other runs continue: %s", async (kill) => {
    const sandbox = nameOf(kill);
    await server.sh("echo there >/tmp/before", { sandbox });
    const { structured, lines } = await runDuring(sandbox, () =>
      server.call("run_command", { sandbox, command: kill }),
    );
    expect(structured).toMatchObject({ state: "failed", exit_code: 3 });
    expect(lines).toEqual(LINES);
    await expectServed(sandbox);
  });

  it.each(["python", "javascript"])(
    "code in %s keeps its variables after pkill -f /opt",
    async (language) => {
      const sandbox = nameOf(language);
      const code = (text: string) => server.call("run_code", { sandbox, language, code: text });
      await code("kept = 41");
      await server.call("run_command", { sandbox, command: "pkill -f /opt" });
      expect((await code("kept + 1")).text).toContain("42");
    },
  );

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

  it.each([
    ["kill -9 -1"],
    ["for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = $$ ] || kill -9 $p; done; kill -9 $$"],
    ["for n in 1 2 3; do pkill -9 -x 'sbx.*'; sleep 0.3; done"],
  ])("runs end, and the next calls work: %s", async (kill) => {
    const sandbox = nameOf(kill);
    await server.sh("echo there >/tmp/before", { sandbox });
    const { structured } = await runDuring(sandbox, () =>
      server.call("run_command", { sandbox, command: kill }),
    );
    expect(structured).toMatchObject({ state: "failed", exit_code: 137 });
    await expectServed(sandbox);
  });
});
