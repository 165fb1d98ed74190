/**
 * Tasks over plain HTTP, for scripts and CI: `POST /execute` and `GET /tasks/:taskId/result`. The shapes are a contract;
 * behind them are the tools' own tasks, with the same principals, runs and limits.
 */
import { type Principal, type Scope, missingScopes } from "../auth/principal.ts";
import { DEFAULT_AGENT } from "../runs/agents.ts";
import { isTaskID } from "../runs/id.ts";
import { shownText } from "../runs/output.ts";
import type { RunView } from "../runs/run.ts";
import { taskDetailOf } from "../runs/task-collect.ts";
import { ToolError } from "../sandbox/errors.ts";
import { type Call, contextOf } from "../tools/define.ts";
import { followTask } from "../tools/follow-task.ts";
import { startTask } from "../tools/start-task.ts";
import { json } from "./answers.ts";
import { readJSON } from "./body.ts";
import { log } from "./log.ts";

/** How long `POST /execute` waits for the end, milliseconds. */
const WAIT_MS = 45_000;

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
    const { value: started } = await startTask(context, { task, agent: DEFAULT_AGENT, timeoutMs: timeout });
    const { value: run } = await followTask(context, started.id, WAIT_MS);
    return run.state === "running" ? unfinished(run) : json(resultOf(run));
  });
}

/** `GET /tasks/:taskId/result`. */
export function taskResult(request: Request, call: Call): Promise<Response> {
  return answering("task_result", call, async () => {
    const [, , id = ""] = new URL(request.url).pathname.split("/");
    if (!isTaskID(id)) return unknown();
    const { value: run } = await followTask(contextOf(call), id, 0);
    if (run.state === "running") return unfinished(run);
    return json({ ...resultOf(run), timestamp: new Date(run.endedAt ?? run.startedAt).toISOString() });
  });
}

/** Runs a handler for whoever may, and puts what goes wrong into the contract's shapes. */
async function answering(where: string, call: Call, work: () => Promise<Response>): Promise<Response> {
  const startedAt = Date.now();
  const { config, principal, requestID } = call;
  const done = (outcome: "ok" | "error", error_code?: string) =>
    log(config, {
      event: "call",
      request_id: requestID,
      principal: principal.id,
      tool: where,
      duration_ms: Date.now() - startedAt,
      outcome,
      error_code,
    });
  const missing = missingFor(principal);
  if (missing) {
    log(config, {
      event: "refusal",
      request_id: requestID,
      status: 403,
      reason: "insufficient_scope",
      principal: principal.id,
      scope: NEEDED.join(" "),
    });
    return json({ error: missing }, 403);
  }
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

function missingFor(principal: Principal): string | undefined {
  const missing = missingScopes(principal, NEEDED);
  return missing.length > 0 ? `This request needs the scopes ${NEEDED.join(" ")}` : undefined;
}

function unfinished({ id, state }: RunView): Response {
  return json({ taskId: id, status: state, result: `/tasks/${id}/result` }, 202);
}

function resultOf(run: RunView) {
  const task = taskDetailOf(run);
  const answer = task?.answer ?? "";
  return {
    taskId: run.id,
    success: task?.success ?? false,
    stdout: shownText(run.stdout),
    stderr: shownText(run.stderr),
    output: answer || (run.note ?? ""),
    status: run.state,
    note: run.note,
    files: task?.changes?.files,
    diff: task?.changes?.diff,
    turns: task?.turns,
    cost_usd: task?.costUSD,
    duration_ms: (run.endedAt ?? Date.now()) - run.startedAt,
  };
}

function unknown(): Response {
  return json({ error: "Task result not found" }, 404);
}

function failure(details: string): Response {
  return json({ error: "Task execution failed", details }, 500);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
