/** Shows the end of a task: its answer as the result, and next to it its changes and costs. */
import { z } from "zod";
import { bytes, duration, note, oneLine, printOutput } from "./print.ts";
import { continueFrom, moreFiles } from "./texts.ts";

const task = z.object({
  id: z.string(),
  state: z.string(),
  answer: z.string().optional(),
  note: z.string().optional(),
  files: z.array(z.object({ path: z.string(), change: z.string(), size: z.number() })).default([]),
  files_changed: z.number().default(0),
  turns: z.number().optional(),
  cost_usd: z.number().optional(),
  duration_ms: z.number(),
  session_id: z.string().optional(),
});

export function isTask(run: object): boolean {
  return "agent" in run;
}

export function printTask(run: object): void {
  const { id, state, answer, note: reason, files, files_changed, ...used } = task.parse(run);
  if (answer !== undefined) printOutput(process.stdout, `${answer.trimEnd()}\n`);
  if (state === "running") return;
  if (reason) note(reason);
  for (const { path, change, size } of files)
    note(`${change.padEnd(7)} ${oneLine(path)}${change === "deleted" ? "" : ` (${bytes(size)})`}`);
  if (files_changed > files.length) note(moreFiles(files_changed - files.length));
  const { turns, cost_usd, duration_ms, session_id } = used;
  const parts = [
    state,
    duration(duration_ms),
    turns === undefined ? "" : `${turns} turns`,
    cost_usd === undefined ? "" : `$${cost_usd.toFixed(4)}`,
  ];
  note(parts.filter(Boolean).join(", "));
  if (session_id !== undefined && state !== "lost") note(continueFrom(id));
}
