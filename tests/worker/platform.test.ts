/** `ctx.container` on the local platform, as the SDK uses it: the same actor, a real sandbox. */
import { expect, it } from "vitest";
import { evict, runInActor, isRunning, owner, sh, until } from "./support.ts";

it("a local sandbox counts as ended for its actor if the engine does not know it", async () => {
  const sandbox = "platform";
  await sh(sandbox, "true");
  await runInActor(sandbox, async (actor, { storage }) => {
    const stored = storage.kv.get<object>("__local_container");
    await actor.destroy();
    storage.kv.put("__local_container", stored);
  });
  await evict(sandbox);
  await until(async () => !(await isRunning(sandbox)));
  // The end of the previous container may interrupt the first call.
  expect(await until(() => sh(sandbox, "echo new").catch(() => undefined))).toBe("new\n");
  await owner.call("destroy_sandbox", { sandbox });
});
