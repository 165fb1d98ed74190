/**
 * Follows a run's log. After a broken connection it continues at the same byte. If it is more than 1 MiB behind, it skips to the last
 * 256 KiB.
 */
import type { ToolOutputs } from "../client/tool-types.ts";
import { CALL_INTERVAL_MS } from "../src/shared/terminal/typing.ts";
import type { Form } from "./host.ts";
import { poll } from "./poll.ts";
import { callTool, ToolFailed } from "./tools.ts";

/** A page of a log, as `get_result` returns it with a cursor. It has the fields of a result of `send_input`. */
export type LogPage = ToolOutputs["send_input"];

/** The pause after a page, in milliseconds. A call for the next page waits for output. */
const PAUSE_MS = 400;

/** The bytes of a screen of text. If a terminal prints at most this much, the output counts as the echo of a key. */
const ECHO_BYTES = 8192;

/** A reader more than MAX_BEHIND bytes behind skips to TAIL bytes before the end. */
const MAX_BEHIND = 1024 * 1024;
const TAIL = 256 * 1024;

interface LogReader {
  /** `raw` for a terminal. */
  form: Form;
  /** @param leftOut how many bytes after this page are skipped */
  onPage(page: LogPage, leftOut: number): void | Promise<void>;
  onProblem(problem: string): void;
}

/** Reads the pages of a log, from its first byte to its end. @returns a function that stops it */
export function followLog(id: string, { form, onPage, onProblem }: LogReader): () => void {
  let cursor = 0;
  let isFirst = true;
  return poll(async (signal) => {
    const startedAt = Date.now();
    // Without `wait_seconds` the server waits as long as its operator allows. The first page, also after a problem, comes at once.
    const call = { id, cursor, ...(isFirst && { wait_seconds: 0 }) };
    isFirst = true;
    let page: LogPage;
    try {
      page = (await callTool<LogPage>("get_result", call, signal, form)).data;
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof ToolFailed) || error.isTemporary) throw error;
      onProblem(error.message);
      return undefined;
    }
    signal.throwIfAborted();
    isFirst = false;
    const { next_cursor: next, log_bytes: bytes } = page;
    const isEcho = form === "raw" && next - cursor <= ECHO_BYTES;
    cursor = bytes - next > MAX_BEHIND ? bytes - TAIL : next;
    await onPage(page, cursor - next);
    if (isReadWhole(page)) return undefined;
    if (cursor < bytes) return 0;
    // If a terminal was silent before an echo, the next poll begins at once, so that typed keys appear immediately.
    return isEcho ? Math.max(0, Math.min(CALL_INTERVAL_MS - (Date.now() - startedAt), PAUSE_MS)) : PAUSE_MS;
  }, onProblem);
}

export function isReadWhole({ state, next_cursor, log_bytes }: LogPage): boolean {
  // If a run has just ended, its state may be older than its page. The next poll returns the end state.
  return state !== "running" && next_cursor >= log_bytes;
}
