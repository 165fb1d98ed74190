/**
 * Tasks over plain HTTP, for scripts and CI: `POST /execute` and `GET /tasks/:taskId/result`. The shapes are a contract;
 * behind them are the tools' own tasks, with the same principals, runs and limits.
 */
import { insufficientScope } from "../auth/challenge.ts";
import { type Scope, missingScopes } from "../shared/principal.ts";
import { ToolError } from "../shared/errors.ts";
import { contextOf, defaultWait } from "../tools/define.ts";
import { followTask } from "../tools/follow-task.ts";
import { startTask } from "../tools/start-task.ts";
import { type PlainTask, plainTask } from "../tools/task-result.ts";
import { json } from "../shared/responses.ts";
import type { Call } from "./app.ts";
import { readJSON } from "./body.ts";
import { log } from "../shared/log.ts";
import { isRecord } from "../shared/is-record.ts";

/** Limits of a task in milliseconds; the same as of the tool. */
const DEFAULT_TIMEOUT_MS = 300_000;
const MAX_TIMEOUT_MS = 21_600_000;

/** Characters of a task. */
const MAX_TASK = 100_000;

const NEEDED: readonly Scope[] = ["tasks:run"];

/** `POST /execute` with `{"task", "timeout"}`, the latter in milliseconds. */
export function execute(request: Request, call: Call): Promise<Response> {
  return answering("execute", call, async () => {
    const body = await readJSON(request);
    if ("problem" in body && body.problem === "too_large")
      return json({ error: "Request body too large" }, 413);
    const fields = "value" in body && isRecord(body.value) ? body.value : {};
    const { task, timeout = DEFAULT_TIMEOUT_MS } = fields;
    if (typeof task !== "string" || task.trim() === "") return json({ error: "Task is required" }, 400);
    if (task.length > MAX_TASK) return json({ error: `Task is longer than ${MAX_TASK} characters` }, 400);
    if (typeof timeout !== "number" || !(timeout >= 1 && timeout <= MAX_TIMEOUT_MS))
      return json({ error: `Timeout must be a number of milliseconds from 1 to ${MAX_TIMEOUT_MS}` }, 400);
    const context = contextOf(call);
    const deadline = Date.now() + defaultWait(call.config.maxWaitSeconds) * 1000;
    const { value: started } = await startTask(context, { task, timeoutMs: timeout });
    const { value: run } = await followTask(context, started.id, deadline - Date.now());
    const ended = plainTask(run);
    return ended && ended.state !== "running" ? json(resultOf(ended)) : unfinished(started);
  });
}

/** `GET /tasks/:taskId/result`. */
export function taskResult(request: Request, call: Call): Promise<Response> {
  return answering("task_result", call, async () => {
    const [, , id = ""] = new URL(request.url).pathname.split("/");
    const { value: run } = await followTask(contextOf(call), id, 0);
    const found = plainTask(run);
    if (!found) return unknown();
    if (found.state === "running") return unfinished(found);
    return json({ ...resultOf(found), timestamp: new Date(found.endedAt ?? found.startedAt).toISOString() });
  });
}

/** Runs a handler for whoever may, and puts what goes wrong into the contract's shapes. */
async function answering(where: string, call: Call, work: () => Promise<Response>): Promise<Response> {
  const startedAt = Date.now();
  const { config, principal, requestID } = call;
  const who = {
    request_id: requestID,
    principal: principal.id,
    door: principal.via,
    client: principal.client,
    scope: NEEDED.join(" "),
  };
  const missing = missingScopes(principal, NEEDED);
  if (missing.length > 0) {
    const { reason, response } = insufficientScope(principal, NEEDED, missing, call.metadata);
    log(config, { event: "refusal", ...who, status: response.status, reason });
    return response;
  }
  const done = (outcome: "ok" | "error", error_code?: string) =>
    log(config, {
      event: "call",
      ...who,
      tool: where,
      duration_ms: Date.now() - startedAt,
      outcome,
      error_code,
    });
  try {
    const response = await work();
    done("ok");
    return response;
  } catch (error) {
    if (!(error instanceof ToolError)) {
      done("error", "internal");
      log(config, { event: "error", ref: requestID, where, error });
      return failure(`Internal error (ref ${requestID})`);
    }
    done("error", error.code);
    if (error.code === "not_found") return unknown();
    const words = [error.message, error.hint].filter(Boolean).join(" ");
    return error.code === "quota_exceeded" ? json({ error: words }, 429) : failure(words);
  }
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

function failure(details: string): Response {
  return json({ error: "Task execution failed", details }, 500);
}
