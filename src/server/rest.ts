/**
 * Tasks and questions over plain HTTP, for scripts and CI: `POST /execute` and `GET /tasks/:taskId/result`. Their JSON
 * is a contract with users. They start and follow the same tasks as the tools, for the same principals and limits.
 */
import { z } from "zod";
import { PROGRAM_LANGUAGES } from "../shared/languages.ts";
import type { Scope } from "../shared/principal.ts";
import { isTaskID } from "../runs/id.ts";
import { type RunView, durationMs } from "../runs/run-types.ts";
import { MAX_QUESTION } from "../tasks/program.ts";
import { defaultWait } from "../shared/wait.ts";
import { contextOf, recorded, sandboxName, type ToolContext } from "../tools/define.ts";
import { MAX_TASK, TASK_SECONDS } from "../tools/execute-task.ts";
import { followTask } from "../tools/follow-task.ts";
import { plainQuestion } from "../tools/question-result.ts";
import { startQuestion, startTask } from "../tools/start-task.ts";
import { plainTask } from "../tools/task-result.ts";
import { json } from "../shared/responses.ts";
import { type BodyProblem, readJSON } from "./body.ts";
import { runEvents } from "./run-events.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { isRecord } from "../shared/is-record.ts";
import { modelName } from "../shared/variables.ts";

const MAX_TIMEOUT_MS = TASK_SECONDS.max * 1000;

/** The scopes of both routes. A question needs the same: it is a task without an agent. */
export const TASK_SCOPES: readonly Scope[] = ["tasks:run"];

/** Text that is not blank. Its error messages are sent to callers as they are. */
function words(name: string, max: number) {
  return z
    .string(`${name} is required`)
    .refine((text) => text.trim() !== "", `${name} is required`)
    .max(max, `${name} is longer than ${max} characters`);
}

/** Milliseconds. */
function timeoutField() {
  const message = `Timeout must be a number of milliseconds from 1 to ${MAX_TIMEOUT_MS}`;
  return z
    .number(message)
    .min(1, message)
    .max(MAX_TIMEOUT_MS, message)
    .default(TASK_SECONDS.default * 1000);
}

/** Names of definitions that must exist. */
function componentNames() {
  const message = "Agents and commands must be lists of names";
  return z.array(z.string(message), message).optional();
}

const taskBody = z.strictObject({
  task: words("Task", MAX_TASK),
  timeout: timeoutField(),
  /** The checkpoint that the task starts from. */
  checkpoint: z.string("Checkpoint must be the id of one").optional(),
  agents: componentNames(),
  commands: componentNames(),
  question: z.undefined("Give a task or a question, not both").optional(),
});

const questionBody = z.strictObject({
  question: words("Question", MAX_QUESTION),
  language: z.enum(PROGRAM_LANGUAGES, `Language must be ${PROGRAM_LANGUAGES.join(" or ")}`).optional(),
  sandbox: z.string("Sandbox must be the name of one").pipe(sandboxName()).optional(),
  model: z.string("Model must be the name of one").pipe(modelName()).optional(),
  timeout: timeoutField(),
});

/** The fields of each body, for the error about an unknown field. */
const FIELDS = `with task go ${fieldNames(taskBody)}; with question go ${fieldNames(questionBody)}`;

function fieldNames({ shape }: z.ZodObject): string {
  return Object.keys(shape)
    .filter((name) => name !== "task" && name !== "question")
    .join(", ");
}

const NO_JSON: ReadonlySet<BodyProblem> = new Set(["not_json", "not_utf8"]);

/** `POST /execute` with `{"task"}` or `{"question"}`; sends events if the client accepts nothing else. */
export async function execute(request: Request, caller: CallerContext): Promise<Response> {
  const body = await readJSON(request);
  if ("problem" in body && body.problem === "too_large")
    return json({ error: "Request body too large" }, 413);
  const fields = "value" in body && isRecord(body.value) ? body.value : {};
  const isQuestion = "question" in fields && !("task" in fields);
  return respond(isQuestion ? "ask" : "execute", caller, async (context) => {
    const deadline = Date.now() + defaultWait(caller.config.maxWaitSeconds) * 1000;
    if ("problem" in body && NO_JSON.has(body.problem))
      return json({ error: "Request body is not JSON" }, 400);
    const started = await (isQuestion ? beginQuestion(context, fields) : beginTask(context, fields));
    if ("refused" in started) return json({ error: started.refused }, 400);
    if (prefersEvents(request)) return events(context, started);
    const { value: run } = await followTask(context, started.id, deadline - Date.now());
    return json(...responseOf(run));
  });
}

type Started = RunView | { refused: string };

async function beginTask(context: ToolContext, fields: object): Promise<Started> {
  const { success, data, error } = taskBody.safeParse(fields);
  if (!success) return refusedBy(error);
  const { timeout, question: _, ...task } = data;
  return (await startTask(context, { ...task, timeoutMs: timeout })).value;
}

async function beginQuestion(context: ToolContext, fields: object): Promise<Started> {
  const { success, data, error } = questionBody.safeParse(fields);
  if (!success) return refusedBy(error);
  const { timeout, ...question } = data;
  return (await startQuestion(context, { ...question, timeoutMs: timeout })).value;
}

function refusedBy({ issues }: z.ZodError): { refused: string } {
  const excess = issues.find((each) => each.code === "unrecognized_keys");
  if (excess)
    return { refused: `There is no field ${JSON.stringify(excess.keys[0]?.slice(0, 100))}: ${FIELDS}` };
  const [issue] = issues;
  const message = issue?.message ?? "It cannot be read";
  // The tools' messages begin with a verb.
  const name = /^[a-z]/.test(message) ? String(issue?.path[0]) : "";
  return { refused: name === "" ? message : `${name[0]?.toUpperCase()}${name.slice(1)} ${message}` };
}

/** `GET /tasks/:taskId/result`, for a task or a question. */
export function taskResult(request: Request, caller: CallerContext): Promise<Response> {
  return respond("task_result", caller, async (context) => {
    const [, , id = ""] = new URL(request.url).pathname.split("/");
    const { value: run } = await followTask(context, id, 0);
    if (!isTaskID(id)) return unknown();
    if (prefersEvents(request)) return events(context, run);
    const [answer, status] = responseOf(run);
    const timestamp = new Date(run.endedAt ?? run.startedAt).toISOString();
    return json(status === 200 ? { ...answer, timestamp } : answer, status);
  });
}

/** Whether the client accepts events but not JSON. */
function prefersEvents({ headers }: Request): boolean {
  const accepted = headers.get("accept") ?? "";
  return accepted.includes("text/event-stream") && !accepted.includes("application/json");
}

function events(context: ToolContext, run: RunView): Response {
  return runEvents(context, { id: run.id, known: withoutResult(run), resultOf: (at) => responseOf(at)[0] });
}

/** Runs a handler as the kit does for tools, and formats errors as the contract says. */
async function respond(
  name: string,
  caller: CallerContext,
  work: (context: ToolContext) => Promise<Response>,
): Promise<Response> {
  const call = { tool: name, scopes: TASK_SCOPES };
  const response = await recorded(caller, call, () => work(contextOf(caller)));
  if (response instanceof Response) return response;
  if (response.code === "not_found")
    return name === "task_result" ? unknown() : json({ error: response.text }, 404);
  if (response.code === "invalid_argument") return json({ error: response.text }, 400);
  if (response.code === "quota_exceeded") return json({ error: response.text }, 429);
  return json({ error: "Task execution failed", details: response.text }, 500);
}

function responseOf(run: RunView): [answer: object, status: 200 | 202] {
  if (run.state === "running") return [withoutResult(run), 202];
  const { id, state, note } = run;
  // A run that ended before it began has only its outcome.
  const own = plainQuestion(run) ?? taskFields(run) ?? { success: false, output: note ?? "", error: note };
  return [{ taskId: id, ...own, status: state, note, duration_ms: durationMs(run) }, 200];
}

function taskFields(run: RunView): object | undefined {
  const task = plainTask(run);
  if (!task) return undefined;
  const { success, log, stderr, answer, note, files, diff, turns, costUSD } = task;
  return {
    success,
    stdout: log,
    stderr,
    output: answer ?? note ?? "",
    files,
    diff,
    turns,
    cost_usd: costUSD,
  };
}

function withoutResult({ id, state }: RunView): { taskId: string; status: string; result: string } {
  return { taskId: id, status: state, result: `/tasks/${id}/result` };
}

function unknown(): Response {
  return json({ error: "Task result not found" }, 404);
}
