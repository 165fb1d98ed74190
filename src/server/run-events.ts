/** Streams a task or a question as server-sent events. The run continues if the client stops reading. */
import { ToolError, toolErrorOf } from "../shared/errors.ts";
import type { RequestMemory } from "../shared/request-memory.ts";
import { logError } from "../shared/log.ts";
import { STREAMS } from "../../container/sandboxd/protocol.ts";
import { type RunView, questionDetailOf } from "../runs/run-types.ts";
import { tokenCheck } from "../auth/bearer.ts";
import { CALLER_TEXTS } from "../auth/texts.ts";
import type { ToolContext } from "../tools/define.ts";
import { waitForRun } from "../tools/follow-task.ts";
import { pieceDecoder } from "../shared/text.ts";
import { pause } from "../shared/timers.ts";
import { eventStream, KEEP_ALIVE, KEEP_ALIVE_MS } from "./event-stream.ts";

/** The lifetime of one stream. It limits the polls: one request to a Worker may make only 1000 calls. */
const STREAM_MS = 600_000;

/** Bytes of output per poll: a log of 100 MiB takes 200 polls. */
const PAGE_BYTES = 512 * 1024;

/** Bytes of output in one event, which stays in memory until the client has read it. */
const EVENT_BYTES = 32 * 1024;

/** The pause between polls is a hundredth of the elapsed time, within these bounds in milliseconds. */
const PAUSE_MS = { min: 100, max: 1200 };

interface RunEvents {
  id: string;
  summary: object;
  resultOf(run: RunView): Promise<object>;
  /** Released at the end of the stream. */
  memory: RequestMemory;
}

/**
 * The first event is `task`. `code` and `output` have the new text since the previous event. The last event is `result`,
 * `running` if the run continues, or `error` if the server cannot read the run or the token is not valid any more.
 */
export function runEvents(context: ToolContext, source: RunEvents): Response {
  return eventStream(eventsOf(context, source), textOf);
}

type Event = [name: string, data: object] | "keep-alive";

function textOf(event: Event): string {
  if (event === "keep-alive") return KEEP_ALIVE;
  const [name, data] = event;
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

async function* eventsOf(
  context: ToolContext,
  { id, summary, resultOf, memory }: RunEvents,
): AsyncGenerator<Event, void> {
  const beganAt = Date.now();
  const sent = { code: 0, cursor: 0 };
  const decode = { stdout: pieceDecoder(), stderr: pieceDecoder() };
  const isTokenValid = tokenCheck(context);
  try {
    yield ["task", summary];
    for (;;) {
      const { run, page } = await waitForRun(context, {
        id,
        waitMs: KEEP_ALIVE_MS,
        cursor: sent.cursor,
        maxBytes: PAGE_BYTES,
        seenCode: sent.code,
      });
      if (!(await isTokenValid())) return yield ["error", { ...summary, error: CALLER_TEXTS.invalidToken }];
      const before = { ...sent };
      const code = questionDetailOf(run)?.code ?? "";
      if (code.length > sent.code) yield ["code", { text: code.slice(sent.code) }];
      sent.code = code.length;
      for (const { stream, bytes } of page?.pieces ?? [])
        for (let at = 0; at < bytes.length; at += EVENT_BYTES)
          yield ["output", { stream, text: decode[stream](bytes.subarray(at, at + EVENT_BYTES)) }];
      sent.cursor = page?.next ?? sent.cursor;
      if (run.state !== "running" && sent.cursor >= run.logBytes) {
        for (const stream of STREAMS) {
          const text = decode[stream]();
          if (text !== "") yield ["output", { stream, text }];
        }
        return yield ["result", await resultOf(run)];
      }
      const elapsedMs = Date.now() - beganAt;
      if (elapsedMs > STREAM_MS) return yield ["running", summary];
      const isNew = before.code !== sent.code || before.cursor !== sent.cursor;
      if (!isNew) yield "keep-alive";
      if (!isNew || sent.cursor >= run.logBytes)
        await pause(Math.min(Math.max(elapsedMs / 100, PAUSE_MS.min), PAUSE_MS.max));
    }
  } catch (error) {
    if (!(error instanceof ToolError)) logError(context, "run_events", error);
    const { text } = toolErrorOf(error, context.requestID);
    yield ["error", { ...summary, error: text }];
  } finally {
    memory.release();
  }
}
