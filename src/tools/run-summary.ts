import * as z from "zod";
import { type RunSummary, type RunView, durationMs } from "../runs/run-types.ts";
import { type EachField, type ListedRun, type RunState, listedRun } from "../shared/run-listing.ts";
import { makeVisible } from "../shared/shown.ts";
import { runningText, waitingText } from "./texts.ts";

/** The state that a model sees. In the structured fields, which programs read, a waiting run is `running`. */
export function stateText({ state, waiting }: RunSummary): RunState | "waiting" {
  return waiting ? "waiting" : state;
}

/** How a run ended, as sections of an answer. */
export function endLines({ exitCode, note }: RunView): [label: string, value: string | number | undefined][] {
  return [
    ["exit_code", exitCode],
    ["note", note && makeVisible(note)],
  ];
}

export function waitHint(run: RunSummary): string | undefined {
  if (run.waiting) return waitingText(run.id, run.waiting);
  if (run.state !== "running") return undefined;
  return runningText(run.id, Math.round(durationMs(run) / 1000));
}

export function listedFields(run: RunSummary): ListedRun {
  return {
    id: run.id,
    kind: run.kind,
    state: run.state,
    title: run.title,
    started_at: new Date(run.startedAt).toISOString(),
    duration_ms: durationMs(run),
    exit_code: run.exitCode,
  } satisfies EachField;
}

export const resultOutput = listedRun
  .pick({ id: true, state: true, duration_ms: true })
  .extend({ next: z.string().optional(), notice: z.string().optional() });
