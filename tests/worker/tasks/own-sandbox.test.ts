/** The sandbox that is made for one task. */
import { expect, it } from "vitest";
import { evict, owner, result, runInActor, sandboxesOf, sh, until } from "../support.ts";

it("if a task's actor is evicted right after the task's end, the next actor destroys the task's own sandbox once, and then it can be used again", async () => {
  const { id } = (await owner.call("execute_task", { task: "[[work]] x", wait_seconds: 0 })).structured as {
    id: string;
  };
  const sandbox = id.split(".")[0] ?? "";
  await until(async () => (await sh(sandbox, "cat /workspace/begun 2>/dev/null || true")) === "begun\n");
  await runInActor(sandbox, (_sandbox, state) => {
    const { storage } = state;
    const isEnded = () =>
      storage.sql.exec("SELECT 1 FROM runs WHERE kind = 'task' AND ended_at IS NOT NULL").toArray().length >
      0;
    const timer = setInterval(() => {
      if (!isEnded()) return;
      clearInterval(timer);
      void storage.sync().then(() => state.abort("evicted by a test"));
    }, 1);
  });
  await sh(sandbox, "touch /workspace/go-on");
  const isListed = async () => (await sandboxesOf()).some(({ name }) => name === sandbox);
  // Something starts the next actor, for example the alarm of its container.
  await until(async () => (await result(id)).text.includes("state: succeeded"));
  await until(async () => !(await isListed()), 30_000);
  await sh(sandbox, "echo kept > /workspace/later");
  await evict(sandbox);
  expect(await sh(sandbox, "cat /workspace/later")).toBe("kept\n");
  expect((await result(id)).text).toContain("state: succeeded");
  expect((await owner.call("list_runs", { kind: "task" })).text).toContain(`${id} task succeeded`);
  await owner.call("destroy_sandbox", { sandbox });
});
