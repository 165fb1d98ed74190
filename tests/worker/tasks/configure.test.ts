import { expect, it } from "vitest";
import { owner, sh } from "../support.ts";

it("an agent has the variables of its sandbox, but they cannot replace its model", async () => {
  const sandbox = "task-variables";
  const env = { FOR_TASKS: "it's there", ANTHROPIC_BASE_URL: "http://127.0.0.1:9" };
  await owner.call("configure_sandbox", { sandbox, env });
  const { structured } = await owner.call("execute_task", { task: "[[variables]] x", sandbox });
  expect(structured.state).toBe("succeeded");
  expect(await sh(sandbox, "cat /workspace/variables; echo $ANTHROPIC_BASE_URL")).toBe(
    "it's there\nhttp://127.0.0.1:9\n",
  );
});
