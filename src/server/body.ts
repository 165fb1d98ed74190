import { exceedsBounds, parseJSON } from "../shared/bounded.ts";
import type { RefusalReason } from "../shared/log.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { MAX_MEMORY_BYTES } from "../shared/request-memory.ts";
import { tooManyWait } from "../shared/request-turns.ts";
import { readBody } from "../shared/stream-bytes.ts";
import { type Refusal, rpcError } from "../shared/responses.ts";
import { CALL_MS, pause } from "../shared/timers.ts";
import { Turns, TurnsByID } from "../shared/turns.ts";
import * as texts from "./texts.ts";

export const MAX_BODY_BYTES = 8 * 1024 * 1024;

/**
 * How many bytes of an oversized body are read and discarded. If the server closed the connection while the client was still
 * sending, the client might not see the response.
 */
const MAX_DRAINED_BYTES = 64 * 1024 * 1024;

/** Time limit for a body: enough for the largest body at half a megabit per second. */
const BODY_MS = 150_000;

/**
 * JSON limits. A call has some dozens of values, a batch of 100 messages about a thousand. Each value takes the schemas several
 * microseconds: 9,000 variables of a command took the thread 23 ms, and 9,000 members of `_meta` 20 ms.
 */
const BOUNDS = { values: 2000, depth: 100, name: MAX_BODY_BYTES };

/**
 * A body of this size is parsed alone, because 8 MiB of escaped quotes take the thread 50 ms. Measured while 40 connections sent
 * such bodies: a call of another principal took up to 0.8 s without this, and 0.2 s with it.
 */
const LONG_BODY_BYTES = 1024 * 1024;
const longBodies = new TurnsByID(() => new Turns(1));

/** The most messages in a batch: the same limit as in MCP's own handler. */
const MAX_BATCH = 100;

/** Reads a body, and parses it in a turn of the request, so that few bodies of a principal are parsed at once. */
export async function readJSON(
  request: Request,
  { memory, turns }: Pick<CallerContext, "memory" | "turns">,
): Promise<{ value: unknown } | { problem: BodyProblem }> {
  const bounds = { maxBytes: MAX_BODY_BYTES, drainBytes: MAX_DRAINED_BYTES, ms: BODY_MS, memory };
  // Reading fails if a chunk is malformed or the client disconnects.
  const read = await readBody(request, bounds).catch(() => ({ problem: "broken" as const }));
  if ("problem" in read) return read;
  // To parse it takes the thread as long as an answer of this length.
  turns.countAnswer(read.bytes.length);
  // A slow body may have outlasted the turn.
  if (!(await turns.begin())) return { problem: request.signal.aborted ? "broken" : "no_turn" };
  if (read.bytes.length < LONG_BODY_BYTES) return parse(read.bytes);
  const end = await longBodies.take("", CALL_MS, request.signal);
  try {
    return parse(read.bytes);
  } finally {
    // The runtime reads from connections when nothing else is ready. So the pause lets it read the requests of others.
    await pause(0);
    end?.();
  }
}

function parse(bytes: Uint8Array): { value: unknown } | { problem: BodyProblem } {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch {
    return { problem: "not_utf8" };
  }
  if (exceedsBounds(text, BOUNDS)) return { problem: "too_many_values" };
  const value = parseJSON(text);
  if (value === undefined) return { problem: "not_json" };
  return Array.isArray(value) && value.length > MAX_BATCH ? { problem: "long_batch" } : { value };
}

/** The responses to invalid bodies: the HTTP status, the JSON-RPC error code and the message. */
const REFUSALS = {
  broken: [400, -32700, texts.UNREADABLE_BODY.broken],
  too_large: [413, -32000, texts.bodyTooLargeText(MAX_BODY_BYTES)],
  no_room: [429, -32000, texts.noRoomText(MAX_MEMORY_BYTES)],
  no_turn: [429, -32000, tooManyWait().text],
  too_slow: [408, -32700, texts.bodyTooSlowText(BODY_MS)],
  not_utf8: [400, -32700, texts.UNREADABLE_BODY.not_utf8],
  not_json: [400, -32700, texts.UNREADABLE_BODY.not_json],
  too_many_values: [400, -32600, texts.tooManyValuesText(BOUNDS)],
  long_batch: [400, -32600, texts.longBatchText(MAX_BATCH)],
} as const;

export type BodyProblem = keyof typeof REFUSALS;

const REASONS: Partial<Record<BodyProblem, RefusalReason>> = {
  too_large: "body_too_large",
  no_turn: "rate_limited",
};

/** The problem as a sentence, for responses that are not JSON-RPC. */
export const problemText = (problem: BodyProblem): string => REFUSALS[problem][2];

export function unreadable(problem: BodyProblem): Refusal {
  const [status, code, message] = REFUSALS[problem];
  const reason = REASONS[problem] ?? "bad_body";
  return { reason, response: rpcError(status, code, message) };
}
