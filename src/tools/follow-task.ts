import type { RunToRead } from "../runs/runs.ts";
import { ToolError } from "../shared/errors.ts";
import { makeVisible } from "../shared/shown.ts";
import { lineDecoder, shortened } from "../shared/text.ts";
import { countdown, pause } from "../shared/timers.ts";
import { type ToolContext, requireSandboxOf } from "./define.ts";

const PROGRESS_BYTES = 16 * 1024;

/** The most characters of a line of progress. The log has the whole line. */
const LINE_CHARS = 500;

/** The most lines of a page that become progress: the last ones. A page can have 8,000, and more of them are not sent at once. */
const PAGE_LINES = 100;

/** The pause if too many calls wait already, in milliseconds. It slows down callers that call `waitForRun` in a loop. */
const FULL_PAUSE_MS = 1000;

/**
 * Waits for a run. If too many calls wait already, returns its state after FULL_PAUSE_MS: an error would hide the id of a task that has
 * just begun, or end the stream of a run.
 */
export async function waitForRun(context: ToolContext, run: RunToRead) {
  const read = (waitMs: number) =>
    context.reading(requireSandboxOf(run.id), (actor, owner) => actor.readRun(owner, { ...run, waitMs }));
  try {
    return await read(run.waitMs);
  } catch (error) {
    if (!(error instanceof ToolError) || error.code !== "quota_exceeded") throw error;
    await pause(Math.min(FULL_PAUSE_MS, run.waitMs));
    return await read(0);
  }
}

/** Waits up to `waitMs` for a task to end, and sends its output as progress. @throws {ToolError} `not_found` */
export async function followTask(context: ToolContext, id: string, waitMs: number) {
  const leftMs = countdown(waitMs);
  const read = (ms: number, cursor?: number) =>
    waitForRun(context, { id, waitMs: Math.max(0, ms), cursor, maxBytes: PROGRESS_BYTES });
  const { progress } = context;
  if (!progress) return (await read(waitMs)).run;
  let { run, page } = await read(0);
  const { source } = run;
  const linesOf = lineDecoder();
  const report = (lines: readonly string[]) => {
    for (const line of lines.filter(Boolean).slice(-PAGE_LINES))
      progress(makeVisible(shortened(line, LINE_CHARS)));
  };
  let cursor = 0;
  while (run.state === "running" && leftMs() > 0) {
    ({ run, page } = await read(leftMs(), cursor));
    if (!page) continue;
    cursor = page.next;
    report(page.pieces.flatMap(({ stream, bytes }) => (stream === "stdout" ? linesOf(bytes) : [])));
  }
  if (run.state !== "running" && cursor >= run.logBytes) report(linesOf());
  return { ...run, source };
}
