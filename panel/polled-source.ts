/** Replaces the server's stream: calls the tools again and again, as often as the server does for a stream. */
import {
  isReadWhole,
  POLL_MS,
  type LogPosition,
  logPauseMs,
  nextOffset,
} from "../src/shared/watch-intervals.ts";
import type { Source, Watch } from "./host.ts";
import { pause } from "./poll.ts";
import { callTool, ToolFailed } from "./tools.ts";

export const polledSource: Source = async (watch, report, signal) => {
  // One failure ends all loops, as with a broken stream.
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const loops = watch.map((call, index) =>
    (call.name === "get_result" ? readLog : pollList)(call, (update) => report(index, update), either),
  );
  try {
    await Promise.all(loops);
  } catch (error) {
    stop.abort();
    if (!signal.aborted) throw error;
  }
  // All watched logs have ended. If this function resolved, the caller would start it again, so it waits for the signal.
  if (!signal.aborted) await new Promise((done) => signal.addEventListener("abort", done, { once: true }));
};

type Report = (update: Parameters<Parameters<Source>[1]>[1]) => Promise<void>;

async function pollList(
  { name, arguments: args }: Watch,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  let reported: string | undefined;
  while (!signal.aborted) {
    const update = await callTool(name, args, signal).then(({ data }) => ({ data }), problemOf);
    const form = JSON.stringify(update);
    if (form !== reported) await report(update);
    reported = form;
    await pause(POLL_MS[name], signal);
  }
}

async function readLog({ arguments: args, raw }: Watch, report: Report, signal: AbortSignal): Promise<void> {
  let cursor = args.cursor;
  let isFirst = true;
  let reported: string | undefined;
  while (!signal.aborted) {
    // Without `wait_seconds` the server waits as long as its operator allows.
    const call = { id: args.id, cursor, ...(isFirst && { wait_seconds: 0 }) };
    const result = callTool<LogPosition>("get_result", call, signal, raw ? "raw" : "structured");
    const update = await result.then(({ data }) => ({ data }), problemOf);
    isFirst = false;
    const form = JSON.stringify(update);
    if (form !== reported) await report(update);
    reported = form;
    if (!("data" in update) || isReadWhole(update.data)) return;
    cursor = nextOffset(update.data);
    await pause(logPauseMs(update.data), signal);
  }
}

function problemOf(error: unknown): { problem: string } {
  if (error instanceof ToolFailed) return { problem: error.message };
  throw error;
}
