/** A sandbox that is destroyed while its container starts: what runs afterwards is listed and counts, or nothing runs. */
import { expect, it } from "vitest";
import { idIn, killContainer, owner, sh, sleep, until, isRunning, sandboxesOf } from "../support.ts";

const CALLS: [what: string, tool: string, args: Record<string, unknown>][] = [
  ["write_file", "write_file", { path: "x", content: "kept" }],
  ["run_command", "run_command", { command: "echo kept >x" }],
  ["run_code", "run_code", { code: "open('x', 'w').write('kept')" }],
  ["a run nobody waits for", "run_command", { command: "echo kept >x; sleep 30", wait_seconds: 0 }],
];

const DELAYS = [0, 20, 60, 120, 400];

const isListed = async (sandbox: string) => (await sandboxesOf()).some(({ name }) => name === sandbox);

it.each(CALLS)("destroyed while it starts for %s, a sandbox is gone or listed", async (what, tool, args) => {
  const prefix = `z${CALLS.findIndex(([name]) => name === what)}`;
  const round = async (ms: number) => {
    const sandbox = `${prefix}-${ms}`;
    const order: string[] = [];
    const called = owner.call(tool, { sandbox, ...args }).finally(() => order.push("call"));
    await sleep(ms);
    const destroyed = await owner.call("destroy_sandbox", { sandbox }).finally(() => order.push("destroy"));
    const result = await called;
    expect(destroyed.isError, destroyed.text).toBe(false);
    // What was abandoned has its last word too.
    await sleep(300);
    // A start that was interrupted is made again: it comes up, or nothing is listed.
    await until(async () => (await isRunning(sandbox)) === (await isListed(sandbox)));
    const listed = await isListed(sandbox);
    expect(await isRunning(sandbox), `after ${ms} ms: ${order}, ${result.text}`).toBe(listed);
    const acknowledged = tool === "write_file" && !result.isError;
    expect(!acknowledged || listed === (order.at(-1) === "call")).toBe(true);
    await owner.call("destroy_sandbox", { sandbox });
    expect(await isRunning(sandbox)).toBe(false);
    expect(await isListed(sandbox)).toBe(false);
  };
  await Promise.all(DELAYS.map(round));
});

it.concurrent("destroyed again and again, it is a new one for the next call each time", async () => {
  const sandbox = "z-again";
  for (let n = 0; n < 6; n++) {
    const command = await owner.call("run_command", { sandbox, command: "ls; echo kept >kept" });
    expect(command.structured).toMatchObject({ state: "succeeded", stdout: "" });
    // A kernel's connection is one of the SDK's, which its stop hook closes.
    if (n % 3 === 0) await owner.call("run_code", { sandbox, code: "1 + 1" });
    expect((await owner.call("destroy_sandbox", { sandbox })).text).toContain("destroyed");
  }
});

it.concurrent.each(["is destroyed", "dies"])(
  "a command that waits for sandboxd while its sandbox %s runs in no later one",
  async (how) => {
    const round = async (n: number) => {
      const sandbox = `z-waits-${how.split(" ").at(-1)}-${n}`;
      await sh(sandbox, "(sleep 1; pkill -STOP -x sbxd) >/dev/null 2>&1 &");
      // The connection to it closes soon when nobody uses it, and no other can be made.
      await sleep(4000);
      const waiting = await owner.call("run_command", {
        sandbox,
        command: "echo ran >/tmp/ran",
        wait_seconds: 0,
      });
      if (how === "dies") await killContainer(sandbox);
      else await owner.call("destroy_sandbox", { sandbox });
      // As soon as it is lost, the next container is started.
      const { structured } = await owner.call("get_result", { id: idIn(waiting) });
      const looked = await sh(sandbox, "sleep 2; ls /tmp", { session: "look" });
      expect(looked.includes("ran")).toBe(structured.state === "succeeded");
      await owner.call("destroy_sandbox", { sandbox });
    };
    await Promise.all([0, 1, 2, 3].map(round));
  },
);
