/** The kit: what a tool is, and what every call of one goes through. */
import type { CallToolResult, ServerContext, ToolAnnotations } from "@modelcontextprotocol/server";
import { z } from "zod";
import type { Principal, Scope } from "../auth/principal.ts";
import { isTaskID } from "../runs/id.ts";
import { ToolError } from "../sandbox/errors.ts";
import { type Told, callSandbox } from "../sandbox/handle.ts";
import { DEFAULT_SANDBOX, SANDBOX_NAME } from "../sandbox/naming.ts";
import type { Owner } from "../sandbox/membership.ts";
import type { Answer, Sandbox } from "../sandbox/sandbox.ts";
import type { Config, Env } from "../server/config.ts";
import { log } from "../server/log.ts";

/** What a call knows of the request it came in. */
export interface Call {
  env: Env;
  config: Config;
  ctx: ExecutionContext;
  principal: Principal;
  /** For the log, and the reference of an internal error. */
  requestID: string;
}

/** What a handler works with. */
export interface ToolContext extends Call {
  /** Calls a method of the principal's sandbox of that name. @throws {ToolError} */
  sandbox<T>(
    name: string,
    call: (actor: DurableObjectStub<Sandbox>, owner: Owner) => Promise<Answer<T>>,
  ): Promise<Told<T>>;
  /** The same for a method that only reads: it is called again when the server restarts the actor over it. */
  reading: ToolContext["sandbox"];
  /** Says what is going on to a client that asked for progress; undefined where nobody did. */
  progress: ((message: string) => void) | undefined;
}

export interface ToolOutput {
  content: CallToolResult["content"];
  /** Everything that matters once more, as data: some clients show the model only this. Never beside an image. */
  structured?: Record<string, unknown>;
}

export interface ToolDefinition<Input extends z.ZodObject> {
  /** snake_case, as on the wire. */
  name: string;
  title: string;
  /** For the model: what it does, when to use it, what comes back. Under 2,048 characters. */
  description: string;
  input: Input;
  hints: { readOnly: boolean; destructive: boolean; idempotent: boolean };
  /** What a caller must have been granted. Enforced before the handler, for the whole request. */
  scopes: readonly Scope[];
  /** Instead of `scopes`, where the argument `id` is that of a task. */
  taskScopes?: readonly Scope[];
  handle(args: z.output<Input>, context: ToolContext): Promise<ToolOutput>;
}

/** A tool as the server sees it. */
export interface Tool {
  name: string;
  title: string;
  description: string;
  input: z.ZodObject;
  annotations: Required<Omit<ToolAnnotations, "title">>;
  scopes: readonly Scope[];
  taskScopes?: readonly Scope[];
  /**
   * Never throws: what goes wrong becomes a result with `isError`.
   * @param args as `input` has parsed them, which the server does
   */
  call(args: Record<string, unknown>, call: Call, server: ServerContext): Promise<CallToolResult>;
}

export function defineTool<Input extends z.ZodObject>(definition: ToolDefinition<Input>): Tool {
  const { hints, handle, ...rest } = definition;
  return {
    ...rest,
    annotations: {
      readOnlyHint: hints.readOnly,
      destructiveHint: hints.destructive,
      idempotentHint: hints.idempotent,
      // A sandbox reaches the network, whatever the tool.
      openWorldHint: true,
    },
    async call(args, call, server) {
      const startedAt = Date.now();
      const { principal, requestID, config } = call;
      const sandbox = typeof args.sandbox === "string" ? args.sandbox : undefined;
      const done = (outcome: "ok" | "error" | "cancelled", error_code?: string) =>
        log(config, {
          event: "call",
          request_id: requestID,
          principal: principal.id,
          door: principal.via,
          client: principal.client,
          scope: scopesOf(definition, args).join(" "),
          tool: definition.name,
          sandbox,
          duration_ms: Date.now() - startedAt,
          outcome,
          error_code,
        });
      const pulse = heartbeat(definition.title, server);
      try {
        const output = await handle(args as z.output<Input>, contextOf(call, pulse?.say));
        done("ok");
        return { content: output.content, structuredContent: output.structured };
      } catch (error) {
        if (error instanceof ToolError) {
          done("error", error.code);
          return failed([error.message, error.hint].filter(Boolean).join(" "));
        }
        done("error", "internal");
        log(config, { event: "error", ref: requestID, where: definition.name, error });
        return failed(
          `Internal error (ref ${requestID}). The server's log has the details under that reference.`,
        );
      } finally {
        pulse?.stop();
      }
    },
  };
}

/** What handlers work with, in the name of the call's principal. */
export function contextOf(call: Call, progress?: (message: string) => void): ToolContext {
  const owner = (sandbox: string): Owner => ({ principalID: call.principal.id, sandbox });
  return {
    ...call,
    progress,
    sandbox: (name, work) => callSandbox(call.env, owner(name), work),
    reading: (name, work) => callSandbox(call.env, owner(name), work, { reads: true }),
  };
}

/** What a call of a tool with these arguments needs. */
export function scopesOf(
  { scopes, taskScopes }: Pick<Tool, "scopes" | "taskScopes">,
  args: unknown,
): readonly Scope[] {
  const id = typeof args === "object" && args !== null && "id" in args ? args.id : undefined;
  return taskScopes && typeof id === "string" && isTaskID(id) ? taskScopes : scopes;
}

function failed(message: string): CallToolResult {
  return { content: [{ type: "text", text: message }], isError: true };
}

/** Seconds between two signs of life on a request that carries a progress token. */
const HEARTBEAT_SECONDS = 5;

interface Pulse {
  say(message: string): void;
  stop(): void;
}

/** Tells a client that asked for progress what the call is at, and that it still is, so that it does not give up. */
function heartbeat(title: string, { mcpReq }: ServerContext): Pulse | undefined {
  const progressToken = mcpReq._meta?.progressToken;
  if (progressToken === undefined) return undefined;
  let at = title;
  let beats = 0;
  let progress = 0;
  const notify = (message: string) => {
    // Counted in milliseconds and told in seconds; the protocol asks that each be more than the one before.
    progress = Math.max(progress + 1, beats * HEARTBEAT_SECONDS * 1000);
    const params = { progressToken, progress: progress / 1000, message };
    // A client that went away is noticed by the transport; its call goes on.
    mcpReq.notify({ method: "notifications/progress", params }).catch(() => undefined);
  };
  const timer = setInterval(() => {
    beats++;
    notify(`${at}: ${beats * HEARTBEAT_SECONDS} s`);
  }, HEARTBEAT_SECONDS * 1000);
  return {
    say: (message) => notify((at = message)),
    stop: () => clearInterval(timer),
  };
}

/** The input field that names a sandbox. A fresh schema for each tool: a shared one would become a `$ref`. */
export function sandboxField() {
  return z
    .string()
    .regex(SANDBOX_NAME, "must be 1 to 20 of a-z, 0-9 and -, without a dash at either end")
    .default(DEFAULT_SANDBOX)
    .describe("Which of your sandboxes; created on first use.");
}

/** The input field for how long something may run. */
export function timeoutField(fallback: number, max: number) {
  return z
    .number()
    .int()
    .min(1)
    .max(max)
    .default(fallback)
    .describe(`Seconds after which it is stopped; at most ${max}.`);
}

/** The input field for how long a call waits for a run. Common clients give up after 60 seconds. */
export function waitField(fallback = 45) {
  return z
    .number()
    .min(0)
    .max(600)
    .default(fallback)
    .describe("Seconds this call waits for the end; what takes longer goes on.");
}

/** The input field that names a run. */
export function runField() {
  return z.string().max(64).describe("The id that the call which started it answered with.");
}

/** Text, as one block. */
export function text(value: string): CallToolResult["content"][number] {
  return { type: "text", text: value };
}

/** A block of sections, each under its label; empty ones are left out. */
export function sections(parts: readonly [label: string, value: string | number | undefined][]): string {
  return parts
    .filter(([, value]) => value !== undefined && value !== "")
    .map(([label, value]) => {
      const shown = String(value);
      return shown.includes("\n") || shown.length > 80
        ? `${label}:\n${shown.replace(/\n$/, "")}`
        : `${label}: ${shown}`;
    })
    .join("\n");
}

/** The input field for a path in a sandbox. */
export function pathField() {
  return z
    .string()
    .min(1)
    .max(4096)
    .refine((value) => !value.includes("\0"), "must not hold a NUL character")
    .describe("Absolute, or relative to /workspace.");
}
