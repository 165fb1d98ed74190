/** What is shown of every run, whatever its kind. */
import { z } from "zod";
import { type RunSummary, type WaitState, durationMs } from "../runs/run-types.ts";
import { type ListedRun, type RunState, listedRun } from "../shared/run-listing.ts";

/** The state for a model. Programs get `running` for a run that waits, too. */
export function stateText({ state, waiting }: RunSummary): RunState | "waiting" {
  return waiting ? "waiting" : state;
}

/** What a run waits for, where it would not have to wait, and the next call. */
export function waitingText(id: string, { behind, kind, name }: WaitState): string {
  const [first, ...more] = behind;
  const others = more.length > 0 ? ` and ${more.length} more` : "";
  const next = `Not started yet. Wait for it with get_result, id ${id}, or withdraw it with cancel_run: it waits`;
  if (kind === "setup") return `${next} for the set-up of the sandbox, which is not over yet, ${first}.`;
  const [place, instead] =
    kind === "workspace"
      ? ["Tasks of one sandbox run", "in another sandbox"]
      : [`Runs of ${kind} ${name} go`, `with another ${kind}`];
  const held = kind === "workspace" ? "the workspace" : `the ${kind} ${name}`;
  return `${next} behind ${first}${others}. ${first} holds ${held}: if it hangs, cancel_run with id ${first} frees it. ${place} one after another; the same call ${instead} works at once.`;
}

/**
 * The call that waits for a run; undefined for one that has ended.
 * @param working what it does, in a word
 */
export function waitCall(run: RunSummary, working = "running"): string | undefined {
  if (run.waiting) return waitingText(run.id, run.waiting);
  if (run.state !== "running") return undefined;
  const seconds = Math.round(durationMs(run) / 1000);
  return `Still ${working} after ${seconds} s; it goes on. Wait for it with get_result, id ${run.id}; stop it with cancel_run.`;
}

/** A run as `list_runs` has it. */
export function listedFields(run: RunSummary): ListedRun {
  return {
    id: run.id,
    kind: run.kind,
    state: run.state,
    title: run.title,
    started_at: new Date(run.startedAt).toISOString(),
    duration_ms: durationMs(run),
    exit_code: run.exitCode,
  };
}

/** What the result of every run has as data. */
export const resultOutput = listedRun
  .pick({ id: true, state: true, duration_ms: true })
  .extend({ next: z.string().optional(), notice: z.string().optional() });
