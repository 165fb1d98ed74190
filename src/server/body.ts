import { hasMoreValues, parseJSON } from "../shared/bounded.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { MAX_HELD_BYTES } from "../shared/limits.ts";
import { readBody } from "../shared/stream-bytes.ts";
import { type Refusal, rpcError } from "../shared/responses.ts";
import * as texts from "./texts.ts";

export const MAX_BODY_BYTES = 8 * 1024 * 1024;

/** How many bytes of an oversized body are read and discarded, so that a client that still sends sees the response. */
const MAX_DRAINED_BYTES = 64 * 1024 * 1024;

/** Time limit for a body: enough for the largest body at half a megabit per second. */
const BODY_MS = 150_000;

/** JSON limits. A call has some dozens of values, a batch of 100 messages about a thousand. */
const MAX_VALUES = 2000;

/** The most messages in a batch: the same limit as in MCP's own handler. */
const MAX_BATCH = 100;

export async function readJSON(
  request: Request,
  { memory }: Pick<CallerContext, "memory">,
): Promise<{ value: unknown } | { problem: BodyProblem }> {
  if (memory?.hasRoomFor(0) === false) return { problem: "no_room" };
  const bounds = {
    maxBytes: MAX_BODY_BYTES,
    drainBytes: MAX_DRAINED_BYTES,
    ms: BODY_MS,
    ...(memory && { reserve: (bytes: number) => memory.addBody(bytes) }),
  };
  // Reading fails if a chunk is malformed or the client disconnects.
  const read = await readBody(request, bounds).catch(() => ({ problem: "broken" as const }));
  return "problem" in read ? read : parse(read.bytes);
}

function parse(bytes: Uint8Array): { value: unknown } | { problem: BodyProblem } {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch {
    return { problem: "not_utf8" };
  }
  if (hasMoreValues(text, MAX_VALUES)) return { problem: "too_many_values" };
  const value = parseJSON(text);
  if (value === undefined) return { problem: "not_json" };
  return Array.isArray(value) && value.length > MAX_BATCH ? { problem: "long_batch" } : { value };
}

/** The responses to invalid bodies: the HTTP status, the JSON-RPC error code and the message. */
const REFUSALS = {
  broken: [400, -32700, texts.UNREADABLE_BODY.broken],
  too_large: [413, -32000, texts.bodyTooLargeText(MAX_BODY_BYTES)],
  no_room: [429, -32000, texts.noRoomText(MAX_HELD_BYTES)],
  too_slow: [408, -32700, texts.bodyTooSlowText(BODY_MS)],
  not_utf8: [400, -32700, texts.UNREADABLE_BODY.not_utf8],
  not_json: [400, -32700, texts.UNREADABLE_BODY.not_json],
  too_many_values: [400, -32600, texts.tooManyValuesText(MAX_VALUES)],
  long_batch: [400, -32600, texts.longBatchText(MAX_BATCH)],
} as const;

export type BodyProblem = keyof typeof REFUSALS;

/** The problem as a sentence, for responses that are not JSON-RPC. */
export const problemText = (problem: BodyProblem): string => REFUSALS[problem][2];

export function unreadable(problem: BodyProblem): Refusal {
  const [status, code, message] = REFUSALS[problem];
  const reason = problem === "too_large" ? "body_too_large" : "bad_body";
  return { reason, response: rpcError(status, code, message) };
}
