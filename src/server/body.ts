import { exceedsBounds } from "../shared/bounded.ts";
import { gather } from "../shared/stream-bytes.ts";
import { type Refusal, rpcError } from "../shared/responses.ts";
import * as texts from "./texts.ts";

export const MAX_BODY_BYTES = 8 * 1024 * 1024;

/**
 * How many bytes of an oversized body are still read. If the connection closed while a client sends, the client would report
 * that instead of the response.
 */
const MAX_DRAINED_BYTES = 64 * 1024 * 1024;

/** Time limit for a body, in milliseconds: enough for the largest one at half a megabit per second. */
const BODY_MS = 150_000;

/** JSON limits. A call has some dozens of values, a batch of 100 messages a few thousand. */
const BOUNDS = { values: 10_000, depth: 100, name: MAX_BODY_BYTES };

/** The most messages in a batch: the same limit as in MCP's own handler. */
const MAX_BATCH = 100;

export type BodyProblem =
  | "broken"
  | "too_large"
  | "too_slow"
  | "not_utf8"
  | "too_many_values"
  | "not_json"
  | "long_batch";

export async function readJSON(request: Request): Promise<{ value: unknown } | { problem: BodyProblem }> {
  const bounds = { maxBytes: MAX_BODY_BYTES, drainBytes: MAX_DRAINED_BYTES, ms: BODY_MS };
  // The chunks were malformed, or the client disconnected.
  const read = await gather(request, bounds).catch(() => ({ problem: "broken" as const }));
  if ("problem" in read) return read;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(read.bytes);
  } catch {
    return { problem: "not_utf8" };
  }
  if (exceedsBounds(text, BOUNDS)) return { problem: "too_many_values" };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { problem: "not_json" };
  }
  return Array.isArray(value) && value.length > MAX_BATCH ? { problem: "long_batch" } : { value };
}

/** The response to an invalid body, with the error codes of MCP's own handler. */
export function unreadable(problem: BodyProblem): Refusal {
  const bad = (status: number, code: number, message: string): Refusal => ({
    reason: "bad_body",
    response: rpcError(status, code, message),
  });
  switch (problem) {
    case "too_large":
      return {
        reason: "body_too_large",
        response: rpcError(413, -32000, texts.bodyTooLargeText(MAX_BODY_BYTES)),
      };
    case "too_slow":
      return bad(408, -32700, texts.bodyTooSlowText(BODY_MS));
    case "too_many_values":
      return bad(400, -32600, texts.tooManyValuesText(BOUNDS));
    case "long_batch":
      return bad(400, -32600, texts.longBatchText(MAX_BATCH));
    default:
      return bad(400, -32700, texts.UNREADABLE_BODY[problem]);
  }
}
