import { z } from "zod";
import { isTaskID } from "../runs/id.ts";
import type { Stream } from "../runs/run.ts";
import { unfinished } from "../runs/output.ts";
import type { LogPage } from "../runs/runs.ts";
import { artifactOutput } from "./artifact.ts";
import { defineTool, runField, sections, text, waitField } from "./define.ts";
import { followTask } from "./follow-task.ts";
import { ownRun } from "./own-run.ts";
import { anyRunFields, runBlocks } from "./run-result.ts";
import { stateText, waitingText } from "./waiting.ts";

/** Bytes of a log in one result. */
const PAGE_BYTES = 48 * 1024;

export const getResult = defineTool({
  name: "get_result",
  title: "Get the result of a run",
  description: `Waits for a run started by run_code, run_command or execute_task and returns its state, output and result: whether it still runs, ended a minute ago, or was started by another client. Results stay for days.

With cursor, returns the log from that byte on instead, stdout and stderr in turn, and the next cursor: read long output page by page from cursor 0, or follow new output of something that runs.`,
  input: z.strictObject({
    id: runField(),
    wait_seconds: waitField(),
    cursor: z.number().int().min(0).optional().describe("Byte of the log to read on from."),
    artifact: z
      .string()
      .max(4096)
      .optional()
      .describe("A file that a task left, by its listed path; cursor is then its byte."),
  }),
  hints: { readOnly: true, destructive: false, idempotent: true },
  scopes: ["sandbox:read"],
  taskScopes: ["tasks:run"],
  async handle({ id, wait_seconds, cursor, artifact }, context) {
    if (artifact !== undefined) return artifactOutput(context, id, artifact, cursor);
    if (cursor === undefined && isTaskID(id)) {
      const { value: run, notice } = await followTask(context, id, wait_seconds * 1000);
      return { content: runBlocks(run, notice), structured: anyRunFields(run, notice) };
    }
    const deadline = Date.now() + wait_seconds * 1000;
    const { value, notice } = await context.reading(ownRun(id), (actor, owner) =>
      actor.readRun(owner, id, Math.max(0, deadline - Date.now()), cursor, PAGE_BYTES, context.progress),
    );
    const { run, page } = value;
    if (!page) return { content: runBlocks(run, notice), structured: anyRunFields(run, notice) };
    const { log, next } = pageTexts(page, run.state === "running");
    const goOn =
      next < run.logBytes
        ? `There is more: go on with cursor ${next}.`
        : run.waiting
          ? waitingText(run.id, run.waiting)
          : run.state === "running"
            ? `Still running: wait for more with cursor ${next}.`
            : "This is the end of the log.";
    const lost = run.droppedBytes > 0 ? ` ${run.droppedBytes} bytes after it were not kept.` : "";
    const head = sections([
      ["notice", notice],
      ["state", stateText(run)],
      ["exit_code", run.exitCode],
      ["note", run.note],
      ["next", next >= run.logBytes && run.state !== "running" ? goOn + lost : goOn],
    ]);
    const shown = log.map(({ stream, text: printed }) => text(`[${stream}]\n${printed}`));
    const structured = {
      id: run.id,
      state: run.state,
      exit_code: run.exitCode,
      log,
      next_cursor: next,
      log_bytes: run.logBytes,
      notice,
    };
    return { content: [text(head), ...shown], structured };
  },
});

/** A page as texts, one for each stretch of a stream. A character cut by the end of the page is left to the next page. */
function pageTexts({ pieces, next }: LogPage, growing: boolean): { log: Stretch[]; next: number } {
  const log: Stretch[] = [];
  let last: Stretch | undefined;
  let end = next;
  // One for each stream, because a piece may end within a character that the stream's next piece continues.
  const decoders = { stdout: decoder(), stderr: decoder() };
  for (const [index, piece] of pieces.entries()) {
    let { bytes } = piece;
    if (index === pieces.length - 1) {
      const cut = unfinished(bytes);
      // At the end of the log, or alone on the page, it would never become whole.
      if (cut > 0 && (growing || cut < bytes.length)) {
        bytes = bytes.subarray(0, bytes.length - cut);
        end -= cut;
      }
    }
    if (piece.stream !== last?.stream) log.push((last = { stream: piece.stream, text: "" }));
    last.text += decoders[piece.stream].decode(bytes, { stream: true });
  }
  if (last) last.text += decoders[last.stream].decode();
  return { log, next: end };
}

/** What one stream printed between two outputs of the other. */
interface Stretch {
  stream: Stream;
  text: string;
}

function decoder(): TextDecoder {
  return new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });
}
