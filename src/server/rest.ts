/**
 * Tasks and questions over plain HTTP, for scripts and CI: `POST /execute`, and `GET` and `DELETE` of `/tasks/:taskId/result`.
 * Scripts depend on the fields of the JSON. These routes start and follow the same tasks as the tools, for the same principals
 * and within the same limits.
 */
import * as z from "zod";
import { tokenCheck } from "../auth/bearer.ts";
import { canSignIn } from "../auth/methods/index.ts";
import { PROGRAM_LANGUAGES } from "../shared/languages.ts";
import type { Scope } from "../shared/principal.ts";
import { decode } from "../shared/resource-uri.ts";
import { ToolError } from "../shared/errors.ts";
import { isTaskID } from "../runs/id.ts";
import { type RunView, durationMs } from "../runs/run-types.ts";
import { MAX_QUESTION } from "../tasks/program.ts";
import { defaultWait } from "../shared/wait.ts";
import { issueMessage } from "../shared/argument-issues.ts";
import {
  contextOf,
  noticeOf,
  recordCall,
  sandboxName,
  type ToolContext,
  requireSandboxOf,
} from "../tools/define.ts";
import { MAX_TASK, startFields, TASK_SECONDS } from "../tools/execute-task.ts";
import { gitHint } from "../tools/git-sign-in.ts";
import { followTask } from "../tools/follow-task.ts";
import { plainQuestion } from "../tools/run-result.ts";
import { startQuestion, startTask } from "../tools/start-task.ts";
import { plainTask } from "../tools/task-result.ts";
import { json } from "../shared/responses.ts";
import { type BodyProblem, problemText, readJSON } from "./body.ts";
import { runEvents } from "./run-events.ts";
import { REST_TEXTS } from "./texts.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { countAnswer } from "../shared/request-memory.ts";
import { RequestMemory } from "../shared/request-memory.ts";
import { isRecord } from "../shared/is-record.ts";
import { countdown, elapsedMs } from "../shared/timers.ts";
import { modelName } from "../shared/variables.ts";

const MAX_TIMEOUT_MS = TASK_SECONDS.max * 1000;

export const TASK_SCOPES: readonly Scope[] = ["tasks:run"];

/** A schema for text that is not blank. Its error messages are sent to callers unchanged. */
function requiredText(name: string, max: number) {
  return z
    .string(REST_TEXTS.required)
    .refine((text) => text.trim() !== "", REST_TEXTS.required)
    .max(max, REST_TEXTS.tooLong(name, max));
}

function millisecondsField(name: string, least: number) {
  const message = REST_TEXTS.milliseconds(name, least, MAX_TIMEOUT_MS);
  return z.number(message).min(least, message).max(MAX_TIMEOUT_MS, message);
}

const times = () => ({
  timeout: millisecondsField("Timeout", 1).default(TASK_SECONDS.default * 1000),
  wait: millisecondsField("Wait", 0).optional(),
});

function componentNames() {
  const message = REST_TEXTS.componentNames;
  return z.array(z.string(message), message).optional();
}

const taskBody = z.strictObject({
  task: requiredText("Task", MAX_TASK),
  ...times(),
  checkpoint: z.string(REST_TEXTS.checkpoint).optional(),
  agents: componentNames(),
  commands: componentNames(),
  ...startFields(),
  question: z.undefined(REST_TEXTS.taskAndQuestion).optional(),
});

const questionBody = z.strictObject({
  question: requiredText("Question", MAX_QUESTION),
  language: z.enum(PROGRAM_LANGUAGES, REST_TEXTS.oneOf("Language", PROGRAM_LANGUAGES)).optional(),
  sandbox: z.string(REST_TEXTS.sandbox).pipe(sandboxName()).optional(),
  model: z.string(REST_TEXTS.model).pipe(modelName()).optional(),
  ...times(),
});

const FIELDS = REST_TEXTS.fields(fieldNames(taskBody), fieldNames(questionBody));

function fieldNames({ shape }: z.ZodObject): string {
  return Object.keys(shape)
    .filter((name) => name !== "task" && name !== "question")
    .join(", ");
}

const NO_JSON: ReadonlySet<BodyProblem> = new Set(["not_json", "not_utf8"]);

/** `POST /execute` with `{"task"}` or `{"question"}`; sends events if the client accepts nothing else. */
export async function execute(request: Request, caller: CallerContext): Promise<Response> {
  const memory = RequestMemory.forCall(caller.principal.id, request.signal);
  const body = await readJSON(request, { ...caller, memory }).finally(() => memory.release());
  if ("problem" in body && body.problem === "too_large") return json({ error: REST_TEXTS.tooLarge }, 413);
  if ("problem" in body && body.problem === "no_room") return json({ error: problemText(body.problem) }, 429);
  const fields = "value" in body && isRecord(body.value) ? body.value : {};
  const isQuestion = "question" in fields && !("task" in fields);
  return respond(isQuestion ? "ask" : "execute", request, caller, async (context) => {
    const isStrict = isStrictRequest(request);
    if ("problem" in body && NO_JSON.has(body.problem)) throw refusal(REST_TEXTS.notJSON);
    // Without memory for its events, the run must not start.
    const eventMemory = memoryForEvents(request, context);
    const start = isQuestion ? beginQuestion(context, fields) : beginTask(context, fields);
    const { run, wait = defaultWait(caller.config.maxWaitSeconds) * 1000 } = await start.catch((error) => {
      eventMemory?.release();
      throw error;
    });
    if (eventMemory) return events(context, run, eventMemory);
    const { latest, isTokenValid } = await waitForEnd(context, run, wait);
    // Not 401: a client that then signs in and repeats the request would start a second run.
    if (!isTokenValid) return json(statusOf(context, latest), 202);
    return respondWith(context, { isStrict, mayWithhold: false }, await responseOf(context, latest));
  });
}

/** The longest wait of one call to the sandbox. A longer wait makes further calls. */
const WAIT_STEP_MS = 300_000;

/** Waits for the end of a run, but no longer than the caller's token is valid. */
async function waitForEnd(
  context: ToolContext,
  run: RunView,
  ms: number,
): Promise<{ latest: RunView; isTokenValid: boolean }> {
  const leftMs = countdown(ms - elapsedMs(context.arrivedAt));
  const checkToken = tokenCheck(context);
  for (let latest = run; ;) {
    const stepMs = Math.min(leftMs(), WAIT_STEP_MS);
    latest = await followTask(context, run.id, stepMs);
    const isTokenValid = await checkToken();
    const isOver = latest.state !== "running" || stepMs < WAIT_STEP_MS;
    if (isOver || !isTokenValid) return { latest, isTokenValid };
  }
}

/** Whether the response for a failed run gets the status 422 (`?strict=1`). */
function isStrictRequest(request: Request): boolean {
  const strict = new URL(request.url).searchParams.get("strict") ?? "0";
  if (!["0", "1", "false", "true"].includes(strict)) throw refusal(REST_TEXTS.strict);
  return strict === "1" || strict === "true";
}

/** @param mayWithhold false if the caller cannot repeat the request */
function respondWith(
  context: ToolContext,
  { isStrict, mayWithhold }: { isStrict: boolean; mayWithhold: boolean },
  [body, status]: [body: object, status: number],
): Response {
  countAnswer(context.memory, body, mayWithhold);
  return json(body, isStrict && "success" in body && body.success === false ? 422 : status);
}

async function beginTask(context: ToolContext, fields: object) {
  const data = parseFields(taskBody, fields);
  const { timeout, wait, question: _, max_turns: maxTurns, continue_from: continueFrom, ...task } = data;
  const request = { ...task, maxTurns, continueFrom, timeoutMs: timeout };
  return { run: await startTask(context, request), wait };
}

async function beginQuestion(context: ToolContext, fields: object) {
  const { timeout, wait, ...question } = parseFields(questionBody, fields);
  return { run: await startQuestion(context, { ...question, timeoutMs: timeout }), wait };
}

function parseFields<T>(schema: z.ZodType<T>, fields: object): T {
  const { success, data, error } = schema.safeParse(fields, { error: issueMessage });
  if (success) return data;
  const excess = error.issues.find((each) => each.code === "unrecognized_keys");
  if (excess) throw refusal(REST_TEXTS.noField(excess.keys[0], FIELDS));
  const [issue] = error.issues;
  const message = issue?.message ?? REST_TEXTS.unreadable;
  // A message of a tool's schema begins with a verb, so the field's name is put before it.
  throw refusal(/^[a-z]/.test(message) ? `${String(issue?.path[0])} ${message}` : message);
}

const refusal = (message: string) => new ToolError("invalid_argument", message);

export function taskResult(request: Request, caller: CallerContext): Promise<Response> {
  return request.method === "DELETE" ? removeResult(request, caller) : readResult(request, caller);
}

function removeResult(request: Request, caller: CallerContext): Promise<Response> {
  // The response has no place for a notice.
  return respond("task_result", request, { ...caller, takesNotice: false }, async (context) => {
    const id = taskIDOf(request);
    if (!isTaskID(id)) return unknownTask();
    const run = await followTask(context, id, 0);
    if (run.state === "running") return json({ error: REST_TEXTS.running, ...statusOf(context, run) }, 409);
    await context.sandbox(requireSandboxOf(id), (actor, owner) => actor.removeRun(owner, id));
    return new Response(null, { status: 204 });
  });
}

function taskIDOf(request: Request): string {
  const [, , id = ""] = new URL(request.url).pathname.split("/");
  return decode(id) ?? id;
}

function readResult(request: Request, caller: CallerContext): Promise<Response> {
  return respond("task_result", request, caller, async (context) => {
    const isStrict = isStrictRequest(request);
    const id = taskIDOf(request);
    if (!isTaskID(id)) return unknownTask();
    const run = await followTask(context, id, 0);
    const eventMemory = memoryForEvents(request, context);
    if (eventMemory) return events(context, run, eventMemory);
    const [body, status] = await responseOf(context, run);
    const timestamp = new Date(run.endedAt ?? run.startedAt).toISOString();
    const stamped = status === 200 ? { ...body, timestamp } : body;
    return respondWith(context, { isStrict, mayWithhold: true }, [stamped, status]);
  });
}

/** Undefined if the client does not ask for events. @throws {ToolError} `quota_exceeded` */
function memoryForEvents({ headers, signal }: Request, context: ToolContext): RequestMemory | undefined {
  const accepted = headers.get("accept") ?? "";
  if (!accepted.includes("text/event-stream") || accepted.includes("application/json")) return undefined;
  return RequestMemory.forStream(context.principal.id, "token", signal);
}

function events(context: ToolContext, run: RunView, memory: RequestMemory): Response {
  // A client may stop reading before the last event, so notices from now on are for its next response.
  return runEvents(contextOf({ ...context, takesNotice: false }), {
    id: run.id,
    summary: statusOf(context, run),
    resultOf: async (at) => (await responseOf(context, at))[0],
    memory,
  });
}

async function respond(
  name: string,
  request: Request,
  caller: CallerContext,
  work: (context: ToolContext) => Promise<Response>,
): Promise<Response> {
  const call = { tool: name, scopes: TASK_SCOPES };
  const memory = RequestMemory.forCall(caller.principal.id, request.signal);
  const context = contextOf({ ...caller, memory, hasSignIn: canSignIn(caller.principal, caller) });
  const response = await recordCall(caller, call, () => work(context));
  return memory.releaseAfter(
    response instanceof ToolError ? errorResponse(response, name, noticeOf(context)) : response,
  );
}

function errorResponse({ code, text: error }: ToolError, name: string, notice: string | undefined): Response {
  if (code === "not_found")
    return name === "task_result" ? unknownTask(notice) : json({ error, notice }, 404);
  if (code === "invalid_argument") return json({ error, notice }, 400);
  if (code === "quota_exceeded") return json({ error, notice }, 429);
  return json({ error: REST_TEXTS.failed, details: error, notice }, 500);
}

async function responseOf(context: ToolContext, view: RunView): Promise<[body: object, status: 200 | 202]> {
  if (view.state === "running") return [statusOf(context, view), 202];
  const note = [view.note, await gitHint(context, view)].filter(Boolean).join(" ") || undefined;
  const run = { ...view, note };
  const { id, state } = run;
  // A run that ended before it started has only a note.
  const result = plainQuestion(run) ?? plainTask(run) ?? { success: false, output: note ?? "", error: note };
  const notice = noticeOf(context);
  return [{ taskId: id, ...result, status: state, note, notice, duration_ms: durationMs(run) }, 200];
}

function statusOf(context: ToolContext, { id, state }: RunView) {
  return {
    taskId: id,
    status: state,
    result: `/tasks/${encodeURIComponent(id)}/result`,
    notice: noticeOf(context),
  };
}

function unknownTask(notice?: string): Response {
  return json({ error: REST_TEXTS.noResult, notice }, 404);
}
