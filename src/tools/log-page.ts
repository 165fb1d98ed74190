import * as z from "zod";
import { STREAMS, type Stream } from "../../container/sandboxd/protocol.ts";
import { type RunView } from "../runs/run-types.ts";
import { RUN_STATES } from "../shared/run-listing.ts";
import type { LogPage } from "../runs/runs.ts";
import { lastStates, spareBlanks, terminalText, unfinishedSequenceLength } from "../runs/terminal-text.ts";
import { putInFence } from "../shared/shown.ts";
import { characterLength, pieceDecoder } from "../shared/text.ts";
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

/** The most bytes of an incomplete character. */
const MAX_CHARACTER_BYTES = 3;

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
  advice?: string,
  { before, isTyped = false, isRaw = false }: PageOptions = {},
): ToolOutput<z.input<typeof logPage>> {
  const { log, next } = pageTexts(page, run, isRaw);
  const isRunning = run.state === "running";
  const isAll = next >= run.logBytes;
  const head = joinSections([
    ["notice", advice],
    ["state", stateText(run)],
    ...endLines(run),
    ["before", before],
    ["next", isTyped && isRunning && isAll ? undefined : nextCall(run, next)],
    ["input", isRunning && run.isInteractive && !isTyped ? typeText(run.id) : undefined],
  ]);
  const spare = spareBlanks();
  const shown = (isRaw ? [] : log).map(({ stream, text: printed }) =>
    text(`[${stream}]\n${putInFence(lastStates(printed, spare))}`),
  );
  const structured: z.input<typeof logPage> = {
    id: run.id,
    state: run.state,
    exit_code: run.exitCode,
    log,
    next_cursor: next,
    log_bytes: run.logBytes,
    interactive: isRunning && run.isInteractive ? true : undefined,
    notice: advice,
  };
  return { content: [text(head), ...shown], structured };
}

function nextCall(run: RunView, next: number): string {
  if (next < run.logBytes) return pageMoreText(next);
  if (run.waiting) return waitingText(run.id, run.waiting);
  return run.state === "running" ? pageRunningText(next) : pageEndText(run.droppedBytes);
}

/**
 * A page as texts, one per span of a stream. A character or escape sequence that this page would cut moves to the next page. The
 * last page of a run that has ended keeps it, because it will never be completed.
 */
function pageTexts({ pieces, next }: LogPage, run: RunView, isRaw: boolean) {
  const log: z.input<typeof logPage>["log"] = [];
  const add = (stream: Stream, printed: string) => {
    const last = log.at(-1);
    if (last?.stream === stream) last.text += printed;
    else if (printed !== "") log.push({ stream, text: printed });
  };
  const bytes = pieces.reduce((sum, piece) => sum + piece.bytes.length, 0);
  const isLast = run.state !== "running" && next >= run.logBytes;
  let room = isLast ? bytes : wholeLength(pieces);
  // A cut never moves the whole page to the next one, or paging would never advance. Only a single character of a running run may
  // wait for its rest.
  if (room === 0 && (run.state !== "running" || bytes > MAX_CHARACTER_BYTES)) room = bytes;
  let end = next - (bytes - room);
  // One decoder per stream, because a piece may end inside a character.
  const decode = { stdout: pieceDecoder(), stderr: pieceDecoder() };
  for (const piece of pieces) {
    add(piece.stream, decode[piece.stream](piece.bytes.subarray(0, room)));
    room -= Math.min(room, piece.bytes.length);
  }
  for (const stream of STREAMS) add(stream, decode[stream]());
  const lastSpan = log.at(-1);
  if (lastSpan && run.isInteractive) {
    const cut = unfinishedSequenceLength(lastSpan.text);
    if (cut < lastSpan.text.length) {
      lastSpan.text = lastSpan.text.slice(0, lastSpan.text.length - cut);
      end -= cut;
    }
    const spare = spareBlanks();
    if (!isRaw) for (const span of log) span.text = terminalText(span.text, spare);
  }
  return { log, next: end };
}

/** The number of bytes up to the last place where no stream is inside a character. */
function wholeLength(pieces: LogPage["pieces"]): number {
  const missing = { stdout: 0, stderr: 0 };
  let length = 0;
  let whole = 0;
  for (const { stream, bytes } of pieces)
    for (const byte of bytes) {
      length++;
      if (byte >= 0x80 && byte < 0xc0) missing[stream] = Math.max(0, missing[stream] - 1);
      else missing[stream] = characterLength(byte) - 1;
      if (missing.stdout + missing.stderr === 0) whole = length;
    }
  return whole;
}
