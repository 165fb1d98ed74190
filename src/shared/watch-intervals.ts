/** What the panel watches, and when each is looked at again: where the server pushes it (`/panel/stream`), and where the page asks. */

import { CALL_MS } from "./terminal/typing.ts";

/** Between two looks, milliseconds: for the log of a run, whose look waits for more output by itself, after each answer. */
export const POLL_MS = { list_sandboxes: 4000, list_runs: 2500, get_result: 400 };

/** Bytes: a terminal that prints no more than this, a screen full of text, is taken to answer a key. */
const ECHO_BYTES = 8192;

/** The tools that can be watched, all of which only read. */
export type WatchedTool = keyof typeof POLL_MS;

/** Where a page of a run's log ends, as `get_result` with a cursor says it. */
export interface LogPosition {
  state: string;
  /** The byte after the page. */
  next_cursor: number;
  /** How many bytes the log has by now. */
  log_bytes: number;
}

/** A reader that is more than MAX_BEHIND bytes behind what a run prints goes on TAIL bytes before the end. */
const MAX_BEHIND = 1024 * 1024;
const TAIL = 256 * 1024;

/** The byte at which a log is read on. What lies between it and `next_cursor` is left out. */
export function nextOffset({ next_cursor: next, log_bytes: bytes }: LogPosition): number {
  return bytes - next > MAX_BEHIND ? bytes - TAIL : next;
}

/** Whether a log has been read to its end, and nothing more comes. */
export function isReadWhole({ state, next_cursor, log_bytes }: LogPosition): boolean {
  // The state may be older than the page of a run that has just ended: the next answer has the rest.
  return state !== "running" && next_cursor >= log_bytes;
}

/** Milliseconds until the next look at a log. */
export function logPauseMs(position: LogPosition): number {
  return nextOffset(position) < position.log_bytes ? 0 : POLL_MS.get_result;
}

/**
 * Milliseconds until the next look at a terminal. Where it rested before it printed, the next look begins at once: who types sees
 * each key as soon as it is shown.
 * @param cursor from which byte on the last look read
 * @param tookMs how long that look took, milliseconds
 */
export function terminalPauseMs(position: LogPosition, cursor: number, tookMs: number): number {
  const isEcho = position.next_cursor - cursor <= ECHO_BYTES;
  return isEcho ? Math.max(0, Math.min(CALL_MS - tookMs, logPauseMs(position))) : logPauseMs(position);
}
