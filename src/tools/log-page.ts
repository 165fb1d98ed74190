import * as z from "zod";
import { type RunView, STREAMS } from "../runs/run-types.ts";
import { RUN_STATES } from "../shared/run-listing.ts";
import type { LogPage } from "../runs/runs.ts";
import { lastStates, terminalText, unfinishedSequenceLength } from "../runs/terminal-text.ts";
import { putInFence } from "../shared/shown.ts";
import { pieceDecoder, wholeCharacters } from "../shared/text.ts";
import { type ToolOutput, joinSections, text } from "./define.ts";
import { endLines, stateText } from "./run-summary.ts";
import { pageEndText, pageMoreText, pageRunningText, typeText, waitingText } from "./texts.ts";

interface PageOptions {
  /** A note about earlier output that the page leaves out. */
  before?: string | undefined;
  /** Whether the caller has just typed into the run, and so needs no hint about typing. */
  isTyped?: boolean;
  isRaw?: boolean | undefined;
}

export const logPage = z.object({
  id: z.string(),
  state: z.enum(RUN_STATES),
  exit_code: z.number().optional(),
  log: z.array(z.object({ stream: z.enum(STREAMS), text: z.string() })),
  next_cursor: z.number(),
  log_bytes: z.number(),
  interactive: z.literal(true).optional(),
  notice: z.string().optional(),
});

export function pageOutput(
  run: RunView,
  page: LogPage,
  notice?: string,
  { before, isTyped = false, isRaw = false }: PageOptions = {},
): ToolOutput<z.input<typeof logPage>> {
  const { log, next } = pageTexts(page, run, isRaw);
  const isRunning = run.state === "running";
  const isAll = next >= run.logBytes;
  const head = joinSections([
    ["notice", notice],
    ["state", stateText(run)],
    ...endLines(run),
    ["before", before],
    ["next", isTyped && isRunning && isAll ? undefined : nextCall(run, next)],
    ["input", isRunning && run.isInteractive && !isTyped ? typeText(run.id) : undefined],
  ]);
  const shown = (isRaw ? [] : log).map(({ stream, text: printed }) =>
    text(`[${stream}]\n${putInFence(lastStates(printed))}`),
  );
  const structured: z.input<typeof logPage> = {
    id: run.id,
    state: run.state,
    exit_code: run.exitCode,
    log,
    next_cursor: next,
    log_bytes: run.logBytes,
    interactive: isRunning && run.isInteractive ? true : undefined,
    notice,
  };
  return { content: [text(head), ...shown], structured };
}

function nextCall(run: RunView, next: number): string {
  if (next < run.logBytes) return pageMoreText(next);
  if (run.waiting) return waitingText(run.id, run.waiting);
  return run.state === "running" ? pageRunningText(next) : pageEndText(run.droppedBytes);
}

/** A page as texts, one per span of a stream. A character or escape sequence that this page would cut moves to the next page. */
function pageTexts({ pieces, next }: LogPage, run: RunView, isRaw: boolean) {
  const growing = run.state === "running";
  const log: z.input<typeof logPage>["log"] = [];
  let lastSpan: (typeof log)[number] | undefined;
  let end = next;
  // One decoder per stream, because a piece may end inside a character.
  const decode = { stdout: pieceDecoder(), stderr: pieceDecoder() };
  for (const [index, piece] of pieces.entries()) {
    let { bytes } = piece;
    if (index === pieces.length - 1) {
      const cut = bytes.length - wholeCharacters(bytes, "end").length;
      // If the run has ended and the cut character is alone in the last piece, the character stays, because it will never be
      // completed.
      if (cut > 0 && (growing || cut < bytes.length)) {
        bytes = bytes.subarray(0, bytes.length - cut);
        end -= cut;
      }
    }
    if (piece.stream !== lastSpan?.stream) log.push((lastSpan = { stream: piece.stream, text: "" }));
    lastSpan.text += decode[piece.stream](bytes);
  }
  if (lastSpan) lastSpan.text += decode[lastSpan.stream]();
  if (lastSpan && run.isInteractive) {
    const cut = unfinishedSequenceLength(lastSpan.text);
    if (cut < lastSpan.text.length) {
      lastSpan.text = lastSpan.text.slice(0, lastSpan.text.length - cut);
      end -= cut;
    }
    if (!isRaw) for (const span of log) span.text = terminalText(span.text);
  }
  return { log, next: end };
}
