/**
 * W3C trace context (https://www.w3.org/TR/trace-context/) as MCP carries it: in a request's `_meta` (SEP-414), or in HTTP
 * headers. Only valid values are accepted, so that nothing else reaches the log or model requests.
 */
import { isRecord } from "./is-record.ts";

export interface TraceContext {
  traceparent: string;
  tracestate?: string;
}

/** A version, the trace id, the caller's span id, and flags. Later versions may add fields, which are dropped. */
const TRACEPARENT = /^([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(-.*)?$/;

/** The most characters that are read of each field. The specification asks receivers to forward at least this many of `tracestate`. */
const MAX_CHARACTERS = 512;
const MAX_MEMBERS = 32;
const MEMBER = /^[a-z\d][a-z\d_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}$/;

export function traceOfMessage(message: unknown): TraceContext | undefined {
  const params = isRecord(message) ? message.params : undefined;
  const meta = isRecord(params) ? params._meta : undefined;
  return isRecord(meta) ? parseTrace(meta.traceparent, meta.tracestate) : undefined;
}

export function traceOfHeaders(headers: Headers): TraceContext | undefined {
  return parseTrace(headers.get("traceparent"), headers.get("tracestate"));
}

export function traceFields(trace: TraceContext | undefined): { trace_id?: string; parent_span_id?: string } {
  const [, trace_id, parent_span_id] = trace?.traceparent.split("-") ?? [];
  return trace_id && parent_span_id ? { trace_id, parent_span_id } : {};
}

function parseTrace(traceparent: unknown, tracestate: unknown): TraceContext | undefined {
  if (typeof traceparent !== "string" || traceparent.length > MAX_CHARACTERS) return undefined;
  const [, version, trace = "", span = "", flags, rest] = TRACEPARENT.exec(traceparent) ?? [];
  if (version === undefined || version === "ff" || (version === "00" && rest !== undefined)) return undefined;
  if (/^0+$/.test(trace) || /^0+$/.test(span)) return undefined;
  const state = typeof tracestate === "string" ? validState(tracestate) : undefined;
  return { traceparent: `00-${trace}-${span}-${flags}`, ...(state !== undefined && { tracestate: state }) };
}

/** An invalid list is dropped completely, as the specification permits. */
function validState(tracestate: string): string | undefined {
  if (tracestate.length > MAX_CHARACTERS) return undefined;
  const members = tracestate
    .split(",")
    .map((member) => member.trim())
    .filter((member) => member !== "");
  const keys = new Set(members.map((member) => member.slice(0, member.indexOf("="))));
  const isValid =
    members.length <= MAX_MEMBERS &&
    keys.size === members.length &&
    members.every((member) => MEMBER.test(member));
  return isValid && members.length > 0 ? members.join(",") : undefined;
}
