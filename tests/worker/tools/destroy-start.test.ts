/** If a sandbox is destroyed while its container starts, no container runs afterwards that the listing does not show. */
import { expect, it } from "vitest";
import { idIn, killContainer, owner, sh, sleep, until, isRunning, isListed } from "../support.ts";

type Call = [what: string, tool: string, args: Record<string, unknown>, delays: number[]];

/** Calls, and the times in milliseconds between each call and the destruction. */
const CALLS: Call[] = [
  ["write_file", "write_file", { path: "x", content: "kept" }, [0, 400]],
  ["run_command", "run_command", { command: "echo kept >x" }, [120]],
  ["run_code", "run_code", { code: "open('x', 'w').write('kept')" }, [400]],
  [
    "a run without a waiting caller",
    "run_command",
    { command: "echo kept >x; sleep 30", wait_seconds: 0 },
    [60],
  ],
];

it.each(CALLS)(
  "a sandbox that is destroyed while it starts for %s either does not exist afterwards or is listed",
  async (what, tool, args, delays) => {
    const prefix = `z${CALLS.findIndex(([name]) => name === what)}`;
    const round = async (ms: number) => {
      const sandbox = `${prefix}-${ms}`;
      const order: string[] = [];
      const called = owner.call(tool, { sandbox, ...args }).finally(() => order.push("call"));
      await sleep(ms);
      const destroyed = await owner.call("destroy_sandbox", { sandbox }).finally(() => order.push("destroy"));
      const result = await called;
      expect(destroyed.isError, destroyed.text).toBe(false);
      // Abandoned calls may still have effects for a moment.
      await sleep(300);
      // The server repeats an interrupted start: the sandbox runs, or it is not listed.
      await until(async () => (await isRunning(sandbox)) === (await isListed(sandbox)));
      const listed = await isListed(sandbox);
      expect(await isRunning(sandbox), `after ${ms} ms: ${order}, ${result.text}`).toBe(listed);
      const acknowledged = tool === "write_file" && !result.isError;
      expect(!acknowledged || listed === (order.at(-1) === "call")).toBe(true);
      await owner.call("destroy_sandbox", { sandbox });
      expect(await isRunning(sandbox)).toBe(false);
      expect(await isListed(sandbox)).toBe(false);
    };
    await Promise.all(delays.map(round));
  },
);

it.concurrent("a sandbox that is destroyed repeatedly is new for the next call each time", async () => {
  const sandbox = "z-again";
  for (let n = 0; n < 2; n++) {
    const command = await owner.call("run_command", { sandbox, command: "ls; echo kept >kept" });
    expect(command.structured).toMatchObject({ state: "succeeded", stdout: "" });
    // A kernel uses a connection of the SDK, which the SDK's stop hook closes.
    if (n === 0) await owner.call("run_code", { sandbox, code: "1 + 1" });
    expect((await owner.call("destroy_sandbox", { sandbox })).text).toContain("destroyed");
  }
});

it.concurrent.each(["is destroyed", "dies"])(
  "if a sandbox %s while a command waits for sandboxd, the command runs in the next container only if its result says so",
  async (how) => {
    const sandbox = `z-waits-${how.split(" ").at(-1)}`;
    await sh(sandbox, "true");
    await sh(sandbox, "(sleep 0.3; pkill -STOP -x sbxd) >/dev/null 2>&1 &");
    // The unused connection to sandboxd soon closes, and no new connection is possible.
    await sleep(4000);
    const command = "echo ran >/tmp/ran";
    const waiting = await owner.call("run_command", { sandbox, command, wait_seconds: 0 });
    if (how === "dies") await killContainer(sandbox);
    else await owner.call("destroy_sandbox", { sandbox });
    // The next container starts as soon as this one is lost.
    const { structured } = await owner.call("get_result", { id: idIn(waiting) });
    // A command is lost, too, if the server sends it before it notices the end of the container.
    const listFiles = () => sh(sandbox, "sleep 2; echo looked; ls /tmp", { session: "look" });
    const looked = await until(() => listFiles().catch(() => undefined));
    expect(looked.includes("ran")).toBe(structured.state === "succeeded");
    await owner.call("destroy_sandbox", { sandbox });
  },
);
