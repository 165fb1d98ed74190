/** `ctx.container` on the local platform, as the SDK uses it: the same actor, a real sandbox. */
import { afterAll, describe, expect, it } from "vitest";
import { evict, runInActor, isRunning, owner } from "./support.ts";

const sandbox = "platform";

afterAll(() => owner.call("destroy_sandbox", { sandbox }));

/** The output of a command. The end of the previous container may interrupt the first call. */
async function output(command: string): Promise<string> {
  for (let attempt = 0; ; attempt += 1) {
    const { structured, text } = await owner.call("run_command", { sandbox, command });
    if (/^(succeeded|failed)$/.test(String(structured.state)))
      return `${structured.stdout}${structured.stderr}`.trimEnd();
    if (attempt === 5) throw new Error(text);
  }
}

describe("a local sandbox", () => {
  it("continues when one of its processes signals its first process", async () => {
    await output("echo kept > /tmp/file");
    await output("kill 1; sleep 3");
    expect(await output("cat /tmp/file")).toBe("kept");
  });

  it("counts as ended for its actor if the engine does not know it", async () => {
    await output("true");
    await runInActor(sandbox, async (actor, state) => {
      const stored = state.storage.kv.get<object>("__local_container");
      await actor.destroy();
      state.storage.kv.put("__local_container", stored);
    });
    await evict(sandbox);
    await expect.poll(async () => await isRunning(sandbox)).toBe(false);
    expect(await output("echo new")).toBe("new");
  });
});
