/**
 * Writes one JSON line per event to the console. Workers Logs indexes these lines.
 *
 * There are only the events below, and TypeScript refuses any other field. No field contains a token, code, file content, a path
 * or a URL. Two exceptions: a client's id can be the URL of its metadata document, and at the level `debug` messages of unexpected
 * errors may quote such data. Names of sandboxes and trace ids come from the caller, and are checked by `names.ts` and `trace.ts`.
 */

import type { Principal } from "./principal.ts";
import { type TraceContext, traceFields } from "./trace.ts";

/** Most verbose first. A level includes all levels after it. */
export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

interface RequestFields {
  request_id: string;
  /** Undefined before authentication. */
  principal?: string;
  via?: Principal["via"];
  client?: string;
  /** If the caller sent a trace context: the trace, and the caller's span. */
  trace_id?: string;
  parent_span_id?: string;
  /** Scopes that the request needed, or that were granted, separated by spaces. */
  scope?: string;
}

interface Events {
  /** One tool call, logged at its end, or when its client disconnects. It also records the token's use. */
  call: RequestFields & {
    tool: string;
    sandbox?: string;
    duration_ms: number;
    outcome: "ok" | "error" | "disconnected";
    error_code?: string;
  };
  refusal: RequestFields & {
    status: number;
    reason: RefusalReason;
    /** The route's pattern, never the actual URL. */
    route?: string;
    /** For `oauth_error`: the failed check of the authorization server, for example `authorization-code-grant/code_replayed`. */
    check?: string;
  };
  /** A valid token was issued to a client, refreshed, revoked, or used without a tool call. Calls have their own event. */
  token: RequestFields & { action: "use" | "issue" | "refresh" | "revoke"; route?: string };
  sandbox: { action: "start" | "stop" | "destroy"; principal: string; sandbox: string };
  sign_in: RequestFields & { outcome: "approved" | "denied" | "refused"; reason?: SignInRefusal };
  /** An unexpected error. `where` names a tool or another part of the server. The response has only `ref`. */
  error: { ref: string; where: string; error: unknown };
  /** The configuration is invalid. `problems` name variables, never values. */
  config: { problems: readonly string[] };
  /** `component` is `<kind>/<name>`, the name of the operator's file. */
  component: { component: string; problem: string };
}

type EventOf<Name extends keyof Events> = { event: Name } & Events[Name];

export type LogEvent = { [Name in keyof Events]: EventOf<Name> }[keyof Events];

export type CallEvent = EventOf<"call">;

export type SandboxEvent = EventOf<"sandbox">;

export type SignInEvent = EventOf<"sign_in">;

export type RefusalReason =
  | "bad_host"
  | "bad_origin"
  | "large_head"
  | "no_token_configured"
  | "no_token"
  | "invalid_token"
  | "token_check_failed"
  | "insufficient_scope"
  | "rate_limited"
  | "body_too_large"
  | "bad_body"
  | "bad_query"
  | "oauth_error";

export type SignInRefusal =
  | "bad_request"
  | "bad_handle"
  | "bad_origin"
  | "no_scope"
  | "wrong_token"
  | "too_many_attempts"
  | "not_allowed"
  /** The allowed login now belongs to another account, because the sign-in site has given it to somebody else. */
  | "login_reassigned"
  | "not_identified"
  /** The site of a sign-in method did not respond as it should. */
  | `${string}_failed`;

const EVENT_LEVEL = {
  call: "info",
  token: "info",
  sign_in: "info",
  sandbox: "info",
  refusal: "warn",
  component: "warn",
  error: "error",
  config: "error",
} as const;

export function log(config: { logLevel: LogLevel }, event: LogEvent): void {
  const isRefused = event.event === "sign_in" && event.outcome === "refused";
  const level: LogLevel = isRefused ? "warn" : EVENT_LEVEL[event.event];
  if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(config.logLevel)) return;
  const fields =
    event.event === "error"
      ? { ...event, error: undefined, ...describe(event.error, config.logLevel) }
      : event;
  console.log(JSON.stringify({ time: new Date().toISOString(), level, ...fields }));
}

export function callerFields({ requestID, principal, trace }: Logged) {
  const { id, via, client } = principal;
  return { request_id: requestID, principal: id, via, client, ...traceFields(trace) };
}

export interface Logged {
  requestID: string;
  principal: Principal;
  trace?: TraceContext | undefined;
}

export function logError(
  { config, requestID: ref }: { config: { logLevel: LogLevel }; requestID: string },
  where: string,
  error: unknown,
): void {
  log(config, { event: "error", ref, where, error });
}

/** The most frames of an error, and the most characters of a frame or message. */
const MAX_FRAMES = 50;
const MAX_CHARS = 1000;

/**
 * The logged parts of an unexpected error. Its message may quote user data (a command, a path), so the message is logged only at `debug`.
 * Class, code and stack frames locate the fault without the message. The stack begins with the message, whose lines can look like frames.
 */
function describe(error: unknown, level: LogLevel): Record<string, unknown> {
  if (!(error instanceof Error)) return { error_name: typeof error };
  const { name, message, stack = "" } = error;
  const code = "code" in error && /^[\w-]{1,64}$/.test(String(error.code)) ? error.code : undefined;
  const lines = stack.slice(stack.indexOf(message) + message.length).split("\n", MAX_FRAMES);
  const frames = lines.filter((line) => /^ {4}at /.test(line));
  return {
    error_name: name,
    error_code: code,
    error_stack: frames.map((line) => line.trim().slice(0, MAX_CHARS)),
    error_message: level === "debug" ? message.slice(0, MAX_CHARS) : undefined,
  };
}
