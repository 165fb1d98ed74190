/** A task or a question as server-sent events, as it goes on. Who stops reading leaves the run at work. */
import { ToolError, toolErrorOf } from "../shared/errors.ts";
import { logError } from "../shared/log.ts";
import type { RunView } from "../runs/run-types.ts";
import { questionDetailOf } from "../runs/run-types.ts";
import type { ToolContext } from "../tools/define.ts";
import { ownRun } from "../tools/own-run.ts";
import { pause } from "../shared/within.ts";
import { eventStream, SILENCE, SILENCE_MS } from "./event-stream.ts";

/** How long one stream goes on, milliseconds. A request may make a thousand calls, and each look at the run is one. */
const STREAM_MS = 600_000;

/** Bytes of output in one look at the run: a log of 100 MiB takes 200. */
const PAGE_BYTES = 512 * 1024;

/**
 * The pause between two looks, milliseconds: a hundredth of the time so far, within these bounds. That makes 750 looks in
 * `STREAM_MS` at most, beside those that find more output than one takes.
 */
const PAUSE_MS = { least: 100, most: 1200 };

export interface RunEvents {
  /** The run's id. */
  id: string;
  /** What is known of the run when it is asked for: all that is said of it without its result. */
  known: object;
  /** The run's result, once it has ended. */
  resultOf(run: RunView): object;
}

/**
 * `task` comes first; `code` and `output` are what is new of the program and of its output; `result` is the last, or
 * `running` where the run goes on, or `error` where the server cannot tell.
 */
export function runEvents(context: ToolContext, what: RunEvents): Response {
  return eventStream(eventsOf(context, what), textOf);
}

type Event = [name: string, data: object] | "silence";

function textOf(event: Event): string {
  if (event === "silence") return SILENCE;
  const [name, data] = event;
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

async function* eventsOf(
  context: ToolContext,
  { id, known, resultOf }: RunEvents,
): AsyncGenerator<Event, void> {
  const beganAt = Date.now();
  yield ["task", known];
  const seen = { code: 0, cursor: 0 };
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  try {
    for (;;) {
      const { value } = await context.reading(ownRun(id), (actor, owner) =>
        actor.readRun(owner, {
          id,
          waitMs: SILENCE_MS,
          cursor: seen.cursor,
          maxBytes: PAGE_BYTES,
          seenCode: seen.code,
        }),
      );
      const { run, page } = value;
      const before = { ...seen };
      const code = questionDetailOf(run)?.code ?? "";
      if (code.length > seen.code) yield ["code", { text: code.slice(seen.code) }];
      seen.code = code.length;
      for (const { stream, bytes } of page?.pieces ?? [])
        yield ["output", { stream, text: decoders[stream].decode(bytes, { stream: true }) }];
      seen.cursor = page?.next ?? seen.cursor;
      if (run.state !== "running" && seen.cursor >= run.logBytes) return yield ["result", resultOf(run)];
      const elapsedMs = Date.now() - beganAt;
      if (elapsedMs > STREAM_MS) return yield ["running", known];
      const isNew = before.code !== seen.code || before.cursor !== seen.cursor;
      if (!isNew) yield "silence";
      if (!isNew || seen.cursor >= run.logBytes)
        await pause(Math.min(Math.max(elapsedMs / 100, PAUSE_MS.least), PAUSE_MS.most));
    }
  } catch (error) {
    if (!(error instanceof ToolError)) logError(context, "run_events", error);
    const { text } = toolErrorOf(error, context.requestID);
    yield ["error", { ...known, error: text }];
  }
}
