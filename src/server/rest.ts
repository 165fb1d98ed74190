/**
 * Tasks over plain HTTP, for scripts and CI: `POST /execute` and `GET /tasks/:taskId/result`. Their JSON is a contract.
 * They start and follow the same tasks as the tools, for the same principals and within the same limits.
 */
import { z } from "zod";
import type { Scope } from "../shared/principal.ts";
import { contextOf, defaultWait, recorded, type ToolContext } from "../tools/define.ts";
import { MAX_TASK, TASK_SECONDS } from "../tools/execute-task.ts";
import { followTask } from "../tools/follow-task.ts";
import { startTask } from "../tools/start-task.ts";
import { type PlainTask, plainTask } from "../tools/task-result.ts";
import { json } from "../shared/responses.ts";
import { readJSON } from "./body.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { isRecord } from "../shared/is-record.ts";

const DEFAULT_TIMEOUT_MS = TASK_SECONDS.default * 1000;
const MAX_TIMEOUT_MS = TASK_SECONDS.max * 1000;

const names = z.array(z.string()).optional();
const componentNames = z.object({ agents: names, commands: names });

/** What both routes need. */
export const TASK_SCOPES: readonly Scope[] = ["tasks:run"];

/**
 * `POST /execute` with `{"task", "timeout", "checkpoint", "agents", "commands"}`: milliseconds, the state that the task starts
 * from, and names of definitions that have to be there.
 */
export function execute(request: Request, caller: CallerContext): Promise<Response> {
  return respond("execute", caller, async (context) => {
    const body = await readJSON(request);
    if ("problem" in body && body.problem === "too_large")
      return json({ error: "Request body too large" }, 413);
    const fields = "value" in body && isRecord(body.value) ? body.value : {};
    const { task, timeout = DEFAULT_TIMEOUT_MS, checkpoint } = fields;
    if (typeof task !== "string" || task.trim() === "") return json({ error: "Task is required" }, 400);
    if (task.length > MAX_TASK) return json({ error: `Task is longer than ${MAX_TASK} characters` }, 400);
    if (typeof timeout !== "number" || !(timeout >= 1 && timeout <= MAX_TIMEOUT_MS))
      return json({ error: `Timeout must be a number of milliseconds from 1 to ${MAX_TIMEOUT_MS}` }, 400);
    if (checkpoint !== undefined && typeof checkpoint !== "string")
      return json({ error: "Checkpoint must be the id of one" }, 400);
    const named = componentNames.safeParse(fields);
    if (!named.success) return json({ error: "Agents and commands must be lists of names" }, 400);
    const deadline = Date.now() + defaultWait(caller.config.maxWaitSeconds) * 1000;
    const asked = { task, timeoutMs: timeout, checkpoint, ...named.data };
    const { value: started } = await startTask(context, asked);
    const { value: run } = await followTask(context, started.id, deadline - Date.now());
    const ended = plainTask(run);
    return ended && ended.state !== "running" ? json(resultOf(ended)) : unfinished(started);
  });
}

/** `GET /tasks/:taskId/result`. */
export function taskResult(request: Request, caller: CallerContext): Promise<Response> {
  return respond("task_result", caller, async (context) => {
    const [, , id = ""] = new URL(request.url).pathname.split("/");
    const { value: run } = await followTask(context, id, 0);
    const found = plainTask(run);
    if (!found) return unknown();
    if (found.state === "running") return unfinished(found);
    return json({ ...resultOf(found), timestamp: new Date(found.endedAt ?? found.startedAt).toISOString() });
  });
}

/** Runs a handler as the kit runs a tool's, and answers errors in the contract's form. */
async function respond(
  name: string,
  caller: CallerContext,
  work: (context: ToolContext) => Promise<Response>,
): Promise<Response> {
  const call = { tool: name, scopes: TASK_SCOPES };
  const response = await recorded(caller, call, () => work(contextOf(caller)));
  if (response instanceof Response) return response;
  if (response.code === "not_found") return unknown();
  if (response.code === "invalid_argument") return json({ error: response.text }, 400);
  if (response.code === "quota_exceeded") return json({ error: response.text }, 429);
  return json({ error: "Task execution failed", details: response.text }, 500);
}

function unfinished({ id, state }: { id: string; state: string }): Response {
  return json({ taskId: id, status: state, result: `/tasks/${id}/result` }, 202);
}

function resultOf(task: PlainTask) {
  return {
    taskId: task.id,
    success: task.success,
    stdout: task.log,
    stderr: task.stderr,
    output: task.answer ?? task.note ?? "",
    status: task.state,
    note: task.note,
    files: task.files,
    diff: task.diff,
    turns: task.turns,
    cost_usd: task.costUSD,
    duration_ms: (task.endedAt ?? Date.now()) - task.startedAt,
  };
}

function unknown(): Response {
  return json({ error: "Task result not found" }, 404);
}
