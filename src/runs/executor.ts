/** How runs of one kind are executed. */
import type { ActiveRun } from "./active-run.ts";
import type { Allowance, Execution, RunKind } from "./run.ts";

export interface Executor<Spec extends Allowance> extends Resumer {
  readonly kind: RunKind;
  /** Starts what the specification says. What it takes to resume the run it gives to `run.keepState`. */
  start(run: ActiveRun, spec: Spec): Execution;
}

export interface Resumer {
  /**
   * Goes on with a run that an earlier actor started.
   * @param state what the executor gave to `keepState` there, as JSON gives it back
   * @throws where that is no state of this version
   */
  resume(run: ActiveRun, state: unknown): Execution;
}
