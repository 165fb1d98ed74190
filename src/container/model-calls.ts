/** Model requests of tasks, between the egress that forwards them and the actor that keeps the budget. */
import type { TraceContext } from "../shared/trace.ts";

/** A forwarded model request. */
export interface ModelCall {
  run: string;
  /** Numbered within the run, from 1. */
  number: number;
}

/** The decision about a model request; `busy` if the same request may succeed soon. */
export type BudgetCheck = Admitted | { refused: string; busy?: boolean };

/** An allowed request, with the task's trace if its caller named one. */
interface Admitted {
  call: ModelCall;
  trace?: TraceContext | undefined;
}

/** An error response of the model's API. */
export interface UpstreamError {
  status: number;
  message: string;
}

/** The outcome of a model request. */
export interface ModelOutcome {
  /** The tokens used. */
  tokens: number;
  error?: UpstreamError;
  /** The agent disconnected before the end; not an error of the API. */
  cut?: boolean;
}

/** As `BudgetCheck`, and whether the sandbox may connect to any host; then the API may do so for it. */
export type Admission = Exclude<BudgetCheck, Admitted> | (Admitted & { isConfined: boolean });

/** How often the egress reports a request under way, in milliseconds. */
export const REPORT_MS = 20_000;

/** The actor's methods for the egress. */
export interface BudgetKeeper {
  admitModelCall(key: string): Promise<Admission>;
  renewModelCall(call: ModelCall): void;
  finishModelCall(call: ModelCall, outcome: ModelOutcome): void;
}
