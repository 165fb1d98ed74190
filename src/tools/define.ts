/** The kit for tools: the definition of a tool, and the steps of every call. */
import type { CallToolResult, InputRequiredResult, ServerContext } from "@modelcontextprotocol/server";
import * as z from "zod";
import { missingScopes, type Scope } from "../shared/principal.ts";
import { isTaskID, MAX_RUN_ID, sandboxOf } from "../runs/id.ts";
import { type ShownOutput, omittedText } from "../runs/shown-output.ts";
import { ERROR_META } from "../shared/apps.ts";
import { countAnswer } from "../shared/request-memory.ts";
import { ToolError, toolErrorOf, unknownRun } from "../shared/errors.ts";
import { type SandboxCalls, sandboxCallsOf } from "../actors/sandbox-client.ts";
import {
  DEFAULT_SANDBOX,
  SANDBOX_NAME,
  sandboxNameRule,
  SESSION_NAME,
  SESSION_NAME_RULE,
} from "../shared/names.ts";
import { type Config, MAX_WAIT_SECONDS } from "../shared/config.ts";
import { isRecord } from "../shared/is-record.ts";
import { putInFence, isLine } from "../shared/shown.ts";
import { type CallEvent, callerFields, log, logError } from "../shared/log.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { MAX_HELD_BYTES } from "../shared/limits.ts";
import type { ToolName } from "../shared/tool-sets.ts";
import { defaultWait } from "../shared/wait.ts";
import { serverStop } from "../shared/waiting-calls.ts";
import { questionedRun, hasDeclined, type Question, questionResult } from "./decision.ts";
import type { MCPTask } from "./mcp-task.ts";
import { NOT_A_VARIABLE, leftOutByConnection, notOffered, serverStopped } from "./texts.ts";

export interface ToolContext extends CallerContext, SandboxCalls {
  progress: ((message: string) => void) | undefined;
  /** Whether the person declined the question of the previous call. */
  isDeclined: boolean;
  /** The id of the run that the previous call's question was about, as the client sent it. */
  questionedRun: string | undefined;
}

export interface ToolOutput<Structured = Record<string, unknown>> {
  /** The text for the model. It has ids and durations only if the next call needs them. */
  content: CallToolResult["content"];
  structured?: Structured;
  task?: MCPTask;
  /** A person has to decide this before the call is done. */
  question?: Question;
}

/**
 * Hints for clients. An omitted hint has the protocol's default: a tool is not idempotent, and can reach the network, as code
 * in a sandbox can. For read-only tools the other hints have no meaning.
 */
type Annotations =
  | { readOnlyHint: true }
  | { readOnlyHint: false; destructiveHint: boolean; idempotentHint?: true };

interface ToolDefinition<Input extends z.ZodObject, Output extends z.ZodObject, Name extends ToolName> {
  name: Name;
  title: string;
  /** For the model: what the tool does, when to use it, and what it returns. Under 2,048 characters. */
  description: string;
  input: Input;
  /**
   * The schema of `structured`. A tool that may return images has no schema, because some clients show only the data of a tool
   * with a schema.
   */
  output?: Output;
  /** The schema of `structured` for a tool without `output`. Only the types of the client library use it. */
  data?: z.ZodObject;
  /** Whether a result may exceed 50,000 characters. Clients hide longer results from the model unless the tool declares this. */
  hasLongAnswers?: true;
  showsPanel?: true;
  /** Whether this server offers and lists the tool; true by default. */
  isOffered?(config: Config): boolean;
  annotations: Annotations;
  /** The scopes that a caller needs. The server checks them for the whole request, before any handler runs. */
  scopes: readonly Scope[];
  /** Replaces `scopes` if the argument `id` names a task. */
  taskScopes?: readonly Scope[];
  handle(args: z.output<Input>, context: ToolContext): Promise<ToolOutput<z.input<Output>>>;
}

export interface Tool<Name extends ToolName = ToolName> extends Omit<
  ToolDefinition<z.ZodObject, z.ZodObject, Name>,
  "handle"
> {
  /**
   * Returns errors as results with `isError`. @param args as parsed by `input`
   * @throws {UrlElicitationRequiredError} if a person has to decide first and the client's revision of MCP is before 2026-07-28
   */
  call(
    args: Record<string, unknown>,
    caller: CallerContext,
    server: ServerContext,
  ): Promise<CallToolResult | InputRequiredResult>;
}

export function defineTool<Input extends z.ZodObject, Output extends z.ZodObject, Name extends ToolName>(
  definition: ToolDefinition<Input, Output, Name>,
): Tool<Name> {
  const { handle, output: answers, data, ...rest } = definition;
  return {
    ...rest,
    output: answers?.extend(NOTICE),
    data: data?.extend(NOTICE),
    async call(args, caller, server) {
      const pulse = heartbeat(definition.title, server, caller);
      const record = {
        tool: definition.name,
        scopes: scopesOf(definition, args),
        sandbox: typeof args.sandbox === "string" ? args.sandbox : undefined,
      };
      const context = contextOf(caller, pulse?.report, hasDeclined(server), questionedRun(server));
      const output = await recordCall(caller, record, async () => {
        requireOffered(definition.name, caller);
        const answer = showNotices(await handle(args as z.output<Input>, context), context);
        // Only the answer of a read-only call may be withheld, because its caller can repeat the call.
        countAnswer(caller.memory, sentPart(answer, caller), definition.annotations.readOnlyHint);
        return answer;
      }).finally(() => pulse?.stop());
      if (output instanceof ToolError) return errorResult(output, context);
      if (output.question) return questionResult(output.question, caller);
      // The SDK's schema requires content, which a task does not have.
      if (output.task) return { content: [], resultType: "task", ...output.task };
      return { content: output.content, structuredContent: output.structured };
    },
  };
}

/** A field of every tool's data: the notices of sandboxes, and the tool's own advice. */
const NOTICE = { notice: z.string().optional() };

/** The notices of a call's sandboxes; undefined if there are none. */
export function noticeOf({ notices }: Pick<ToolContext, "notices">): string | undefined {
  return [...notices].join(" ") || undefined;
}

/** Adds the notices of a call's sandboxes to its answer. */
function showNotices(answer: ToolOutput, context: ToolContext): ToolOutput {
  const notice = noticeOf(context);
  if (notice === undefined) return answer;
  const { content, structured } = answer;
  const all = [notice, structured?.notice].filter(Boolean).join(" ");
  return {
    ...answer,
    content: [text(joinSections([["notice", notice]])), ...content],
    structured: structured && { ...structured, notice: all },
  };
}

/** The part of an answer that the client gets. */
export function sentPart({ content, structured }: ToolOutput<unknown>, { isStructured }: CallerContext) {
  return { content, structuredContent: isStructured ? (structured as Record<string, unknown>) : undefined };
}

function errorResult({ code, message, hint, text: shown }: ToolError, context: ToolContext): CallToolResult {
  const afterNotice = (sentence: string) => [noticeOf(context), sentence].filter(Boolean).join(" ");
  const _meta = context.isStructured
    ? { [ERROR_META]: { code, message: afterNotice(message), hint } }
    : undefined;
  return { content: [text(afterNotice(shown))], isError: true, ...(_meta && { _meta }) };
}

/** Whether a caller gets a tool: the operator offers it, the client chose it, and the token's scopes allow it. */
export function isListed(tool: Tool, { config, principal, chosenTools = config.tools }: CallerContext) {
  const scopeSets = [tool.scopes, ...(tool.taskScopes ? [tool.taskScopes] : [])];
  return (
    (tool.isOffered?.(config) ?? true) &&
    chosenTools.has(tool.name) &&
    scopeSets.some((scopes) => missingScopes(principal, scopes).length === 0)
  );
}

/** @throws {ToolError} if the operator does not offer the tool, or the connection's address leaves it out */
export function requireOffered(name: ToolName, { config, chosenTools }: CallerContext): void {
  if (!config.tools.has(name)) throw notOffered(name, config.tools);
  if (chosenTools && !chosenTools.has(name)) throw leftOutByConnection(name, chosenTools);
}

/**
 * Runs one call, from MCP or REST, and logs its outcome once. Returns errors. The answer for an unexpected error
 * has only the request id. The error's line in the log has the same id.
 */
export async function recordCall<T>(
  caller: CallerContext,
  { tool, scopes, sandbox }: { tool: string; scopes: readonly Scope[]; sandbox?: string },
  work: () => Promise<T>,
): Promise<T | ToolError> {
  const startedAt = Date.now();
  const { client } = caller;
  const { stopped, ignore } = serverStop(serverStopped);
  let isLogged = false;
  const logEnd = (ended: Pick<CallEvent, "outcome" | "error_code">) => {
    ignore();
    client?.removeEventListener("abort", onDisconnect);
    if (isLogged) return;
    isLogged = true;
    const call = { scope: scopes.join(" "), tool, sandbox, duration_ms: Date.now() - startedAt };
    log(caller.config, { event: "call", ...callerFields(caller), ...call, ...ended });
  };
  // When the client disconnects, the runtime may end this function without a sign.
  const onDisconnect = () => logEnd({ outcome: "disconnected" });
  client?.addEventListener("abort", onDisconnect);
  if (client?.aborted) onDisconnect();
  let result: T | ToolError;
  try {
    result = await Promise.race([work(), stopped]);
  } catch (error) {
    if (!(error instanceof ToolError)) logError(caller, tool, error);
    result = toolErrorOf(error, caller.requestID);
  }
  logEnd(result instanceof ToolError ? { outcome: "error", error_code: result.code } : { outcome: "ok" });
  return result;
}

export function contextOf(
  caller: CallerContext,
  progress?: (message: string) => void,
  isDeclined = false,
  runID?: string,
): ToolContext {
  return { ...caller, ...sandboxCallsOf(caller), progress, isDeclined, questionedRun: runID };
}

export function scopesOf(
  { scopes, taskScopes }: Pick<Tool, "scopes" | "taskScopes">,
  args: unknown,
): readonly Scope[] {
  const id = isRecord(args) ? args.id : undefined;
  return taskScopes && typeof id === "string" && isTaskID(id) ? taskScopes : scopes;
}

const HEARTBEAT_SECONDS = 5;

/** Each notification repeats the progress token that the client chose, and waits in memory until the client reads it. */
const MAX_PROGRESS_TOKEN_LENGTH = 256;

/** While the principal's requests and unread answers take more memory, no lines of progress are sent. The rest is for answers. */
const PROGRESS_BYTES = MAX_HELD_BYTES / 2;

/**
 * Sends notifications of progress, and repeats the last one regularly, so that the client keeps waiting. A client may read none, so
 * each counts as part of the unread answer. Beyond PROGRESS_BYTES, only the regular ones are sent.
 */
function heartbeat(title: string, { mcpReq }: ServerContext, { memory }: Pick<CallerContext, "memory">) {
  const progressToken = mcpReq._meta?.progressToken;
  if (progressToken === undefined || String(progressToken).length > MAX_PROGRESS_TOKEN_LENGTH)
    return undefined;
  let lastMessage = title;
  let beats = 0;
  let progress = 0;
  const notify = (message: string) => {
    // In milliseconds, sent as seconds. The protocol requires that the value increases with every notification.
    progress = Math.max(progress + 1, beats * HEARTBEAT_SECONDS * 1000);
    const params = { progressToken, progress: progress / 1000, message };
    memory?.add(JSON.stringify(params).length);
    // The notification fails if the client has disconnected. The call continues.
    mcpReq.notify({ method: "notifications/progress", params }).catch(() => undefined);
  };
  const timer = setInterval(() => {
    beats++;
    notify(`${lastMessage}: ${beats * HEARTBEAT_SECONDS} s`);
  }, HEARTBEAT_SECONDS * 1000);
  const report = (message: string) => {
    lastMessage = message;
    if (memory?.hasRoomFor(MAX_HELD_BYTES - PROGRESS_BYTES) !== false) notify(message);
  };
  return { report, stop: () => clearInterval(timer) };
}

/** A tool's input schema for these settings. For the default settings, it is the tool's own schema object. */
export function inputFor(tool: Pick<Tool, "input">, options: { sandbox: string; maxWaitSeconds: number }) {
  const { input } = tool;
  const { sandbox, maxWaitSeconds } = options;
  const changed: Record<string, z.ZodType> = {};
  if (sandbox !== DEFAULT_SANDBOX && input.shape.sandbox instanceof z.ZodDefault)
    changed.sandbox = sandboxField(sandbox);
  if (maxWaitSeconds !== MAX_WAIT_SECONDS && input.shape.wait_seconds)
    changed.wait_seconds = copyDescription(waitField(maxWaitSeconds), input.shape.wait_seconds);
  return Object.keys(changed).length > 0 ? input.extend(changed) : input;
}

/** Each tool gets a new schema: a shared one would become a `$ref`. */
export function sandboxField(fallback = DEFAULT_SANDBOX) {
  return sandboxName().default(fallback);
}

/** The schema that clients get lacks the pattern, which would cost many tokens in every tool. */
export function sandboxName() {
  return z
    .string()
    .refine((name) => SANDBOX_NAME.test(name), { error: ({ input }) => sandboxNameRule(input) });
}

/** The name of a command session, or of a kernel's context. */
export function sessionField(fallback: string) {
  return z
    .string()
    .refine((name) => SESSION_NAME.test(name), SESSION_NAME_RULE)
    .default(fallback);
}

export function timeoutField(fallback: number, max: number) {
  return wholeNumber(1, max).default(fallback);
}

export function wholeNumber(min: number, max: number) {
  const message = `must be a whole number from ${min} to ${max}`;
  return z.number().int(message).min(min, message).max(max, message);
}

export function waitField(max = MAX_WAIT_SECONDS) {
  return z
    .number()
    .min(0)
    .max(max, `must be at most ${max}: a longer run continues, and get_result can wait for it`)
    .default(defaultWait(max));
}

function copyDescription(field: z.ZodType, { description }: z.ZodType): z.ZodType {
  return description === undefined ? field : field.describe(description);
}

export function runField() {
  return z.string().max(MAX_RUN_ID);
}

/** @throws {ToolError} `not_found` for an invalid id of a run */
export function requireSandboxOf(id: string): string {
  const sandbox = sandboxOf(id);
  if (sandbox !== undefined) return sandbox;
  throw unknownRun(id);
}

export function text(value: string): CallToolResult["content"][number] {
  return { type: "text", text: value };
}

/** Program output or file content, shown so that it cannot be mistaken for the server's text. */
type QuotedOutput = Pick<ShownOutput, "head" | "tail"> & Partial<ShownOutput>;

export function quoteOutput(head: string | undefined): QuotedOutput | undefined {
  return head === undefined ? undefined : { head, tail: "" };
}

/** Joins labelled sections of the server's text and of outputs. Empty sections are dropped. */
export function joinSections(
  parts: readonly [label: string, value: string | number | QuotedOutput | undefined][],
): string {
  return parts
    .flatMap(([label, value]) => {
      const isQuoted = typeof value === "object";
      const shown = isQuoted ? quotedText(value) : String(value ?? "").replace(/\n$/, "");
      if (shown === "") return [];
      const isBelow = shown.includes("\n") || (!isQuoted && shown.length > 80);
      return isBelow ? `${label}:\n${shown}` : `${label}: ${shown}`;
    })
    .join("\n");
}

function quotedText({ head, tail, omitted = 0, bytes = 0 }: QuotedOutput): string {
  if (omitted > 0) return [putInFence(head), omittedText({ omitted, bytes }), putInFence(tail)].join("\n");
  const line = (head + tail).replace(/\n$/, "");
  return isLine(line) ? line : putInFence(head + tail);
}

export function pathField() {
  return wellFormedText(forbidNUL(z.string().min(1).max(4096)));
}

/** Text for a file or its name. In UTF-8, each half of a surrogate pair would silently become the same character. */
export const wellFormedText = (field: z.ZodString) =>
  field.refine((value) => value.isWellFormed(), "must not contain half of a surrogate pair");

export const forbidNUL = (field: z.ZodString) =>
  field.refine((value) => !value.includes("\0"), "must not contain a NUL character");

/** A refinement checks the names, because zod drops the messages of key schemas. */
export function variablesField(problemWith: (name: string) => string | undefined = () => undefined) {
  return z
    .record(
      z.string(),
      wellFormedText(forbidNUL(z.string())).refine(
        (value) => new TextEncoder().encode(value).length <= MAX_VALUE_BYTES,
        `is longer than ${MAX_VALUE_BYTES} bytes: save it with write_file and pass the path`,
      ),
    )
    .superRefine((env, { addIssue }) => {
      for (const name of Object.keys(env)) {
        const message = VARIABLE_NAME.test(name) ? problemWith(name) : NOT_A_VARIABLE;
        if (message) addIssue({ code: "custom", path: [name.slice(0, 100)], message });
      }
    })
    .optional();
}

/** The most bytes of a variable's value. Linux allows 128 KiB including the name. */
const MAX_VALUE_BYTES = 120 * 1024;

/** Linux allows 128 KiB for the name and the value. */
const VARIABLE_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,999}$/;
