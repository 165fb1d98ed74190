import type { ToolContext } from "./define.ts";
import { makeVisible } from "../shared/shown.ts";
import { sandboxOfRun } from "./run-sandbox.ts";

const PROGRESS_BYTES = 16 * 1024;

/** Waits up to `waitMs` for a task to end, and sends its output as progress. @throws {ToolError} `not_found` */
export async function followTask(context: ToolContext, id: string, waitMs: number) {
  const deadline = Date.now() + waitMs;
  const read = (until: number, cursor?: number) =>
    context.reading(sandboxOfRun(id), (actor, owner) => {
      const leftMs = Math.max(0, until - Date.now());
      return actor.readRun(owner, { id, waitMs: leftMs, cursor, maxBytes: PROGRESS_BYTES });
    });
  const { progress } = context;
  if (!progress) {
    const { value, notice } = await read(deadline);
    return { value: value.run, notice };
  }
  const notices: string[] = [];
  let { value, notice } = await read(0);
  const { source } = value.run;
  let cursor = 0;
  for (;;) {
    if (notice) notices.push(notice);
    if (value.run.state !== "running" || Date.now() >= deadline) break;
    ({ value, notice } = await read(deadline, cursor));
    if (!value.page) continue;
    cursor = value.page.next;
    for (const { stream, bytes } of value.page.pieces)
      if (stream === "stdout")
        for (const line of new TextDecoder().decode(bytes).split("\n").filter(Boolean))
          progress(makeVisible(line));
  }
  return { value: { ...value.run, source }, notice: notices.join(" ") || undefined };
}
