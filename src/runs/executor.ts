/** How runs of one kind are executed. */
import type { ActiveRun } from "./active-run.ts";
import type { Allowance, Execution } from "./run-types.ts";
import type { RunKind } from "../shared/run-listing.ts";

export interface Executor<Spec extends Allowance> extends Resumer {
  readonly kind: RunKind;
  /** Starts a run as specified, and gives the state that it can be resumed from to `run.keepState`. */
  start(run: ActiveRun, spec: Spec): Execution;
}

export interface Resumer {
  /**
   * Resumes a run that an earlier actor started.
   * @param state what the executor gave to `keepState` there, as JSON gives it back
   * @throws where that is no state of this version
   */
  resume(run: ActiveRun, state: unknown): Execution;
}
