/** How a run that has not started is shown to a model. */
import type { RunState, RunSummary, Waiting } from "../runs/run.ts";

/** The state for a model. Programs get `running` for a run that waits, too. */
export function stateText({ state, waiting }: RunSummary): RunState | "waiting" {
  return waiting ? "waiting" : state;
}

/** What a run waits for, where it would not have to wait, and the next call. */
export function waitingText(id: string, { behind, kind, name }: Waiting): string {
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
