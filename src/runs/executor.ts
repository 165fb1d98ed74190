/** How runs of one kind are executed. */
import type { ActiveRun } from "./active-run.ts";
import type { Allowance, Execution, RunDetail } from "./run-types.ts";
import type { RunKind } from "../shared/run-listing.ts";

export interface Executor<Spec extends Allowance> extends Resumer {
  readonly kind: RunKind;
  /** The detail of a run until it starts; undefined if it has none. */
  detailOf?(spec: Spec): RunDetail;
  /** Starts a run, and stores the state for resuming it with `run.keepState`. */
  start(run: ActiveRun, spec: Spec): Execution;
}

export interface Resumer {
  /**
   * Resumes an earlier actor's run.
   * @param state from `keepState`, as parsed JSON
   * @throws if it is not a state of this version
   */
  resume(run: ActiveRun, state: unknown): Execution;
}
