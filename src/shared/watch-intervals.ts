/** What the panel watches and how often, for the server's pushes (`/panel/stream`) and for polling by the page. */

import { CALL_INTERVAL_MS } from "./terminal/typing.ts";

/** Milliseconds between polls. A poll of a log waits for output, so its pause begins after its result. */
export const POLL_MS = { list_sandboxes: 4000, list_runs: 2500, get_result: 400 };

/** The bytes of a screen of text. If a terminal prints at most this much, the output counts as the echo of a key. */
const ECHO_BYTES = 8192;

/** The tools that can be watched; all are read-only. */
export type WatchedTool = keyof typeof POLL_MS;

export interface LogPosition {
  state: string;
  /** The byte after the page. */
  next_cursor: number;
  log_bytes: number;
}

/** A reader more than MAX_BEHIND bytes behind skips to TAIL bytes before the end. */
const MAX_BEHIND = 1024 * 1024;
const TAIL = 256 * 1024;

/** The offset of the next poll. Bytes between `next_cursor` and this offset are skipped. */
export function nextOffset({ next_cursor: next, log_bytes: bytes }: LogPosition): number {
  return bytes - next > MAX_BEHIND ? bytes - TAIL : next;
}

export function isReadWhole({ state, next_cursor, log_bytes }: LogPosition): boolean {
  // If a run has just ended, its state may be older than its page. The next poll returns the end state.
  return state !== "running" && next_cursor >= log_bytes;
}

export function logPauseMs(position: LogPosition): number {
  return nextOffset(position) < position.log_bytes ? 0 : POLL_MS.get_result;
}

/**
 * Milliseconds until the next poll of a terminal. If the terminal was silent before this output, the next poll begins at once,
 * so that typed keys appear immediately.
 * @param cursor the first byte of the last poll
 * @param tookMs its duration in milliseconds
 */
export function terminalPauseMs(position: LogPosition, cursor: number, tookMs: number): number {
  const isEcho = position.next_cursor - cursor <= ECHO_BYTES;
  return isEcho
    ? Math.max(0, Math.min(CALL_INTERVAL_MS - tookMs, logPauseMs(position)))
    : logPauseMs(position);
}
