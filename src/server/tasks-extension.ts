/** The methods of MCP's Tasks extension (SEP-2663), for runs that tools start. A task's id is the run's id. */
import { type McpServer, MissingRequiredClientCapabilityError } from "@modelcontextprotocol/server";
import * as z from "zod";
import { protocolError, readSandbox } from "../resources/context.ts";
import { MAX_RUN_ID } from "../runs/id.ts";
import type { RunView } from "../runs/run-types.ts";
import { countAnswer } from "../shared/request-memory.ts";
import { ToolError } from "../shared/errors.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { contextOf, recordCall, requireSandboxOf, sentPart } from "../tools/define.ts";
import { requiredScopes } from "../tools/index.ts";
import { TASK_METHODS, TASKS_CAPABILITY, taskOf } from "../tools/mcp-task.ts";
import { anyRunFields, runAnswer } from "../tools/run-result.ts";

const params = z.object({ taskId: z.string().max(MAX_RUN_ID) });

export function registerTasks({ server }: McpServer, caller: CallerContext): void {
  server.registerCapabilities(TASKS_CAPABILITY);
  const handle = (method: keyof typeof TASK_METHODS, taskCall: (id: string) => Promise<object>) =>
    server.setRequestHandler(method, { params }, async ({ taskId }) => {
      if (!caller.takesTasks)
        throw new MissingRequiredClientCapabilityError({ requiredCapabilities: TASKS_CAPABILITY });
      const scopes = requiredScopes(TASK_METHODS[method], { id: taskId });
      const outcome = await recordCall(caller, { tool: method, scopes }, () => taskCall(taskId));
      if (outcome instanceof ToolError) throw protocolError(outcome);
      return { ...outcome };
    });
  const find = async (id: string): Promise<RunView> =>
    (
      await readSandbox(caller, requireSandboxOf(id), (actor, owner) =>
        actor.readRun(owner, { id, waitMs: 0 }),
      )
    ).run;

  handle("tasks/get", async (id) => describeTask(caller, await find(id)));
  // This server's tasks never ask for input, so any input is ignored.
  handle("tasks/update", async (id) => {
    await find(id);
    return {};
  });
  handle("tasks/cancel", async (id) => {
    await readSandbox(caller, requireSandboxOf(id), (actor, owner) => actor.cancelRun(owner, id, 0));
    return {};
  });
}

async function describeTask(caller: CallerContext, run: RunView): Promise<object> {
  const task = taskOf(run, caller.config);
  if (task.status !== "completed") return task;
  const answer = await runAnswer(contextOf({ ...caller, takesNotice: false }), run, anyRunFields);
  const sent = sentPart(answer, caller);
  countAnswer(caller.memory, sent, true);
  return { ...task, result: { ...sent, isError: false } };
}
