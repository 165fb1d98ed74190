/** Model requests of tasks, between the egress that forwards them and the actor that keeps the budget. */
import type { TraceContext } from "../shared/trace.ts";

export interface ModelCall {
  run: string;
  /** The number of the request within the run, from 1. */
  number: number;
}

/** The decision about a model request; `busy` if the same request may succeed soon. */
export type BudgetCheck = Admitted | { refused: string; busy?: boolean };

interface Admitted {
  call: ModelCall;
  trace?: TraceContext | undefined;
}

export interface UpstreamError {
  status: number;
  message: string;
}

export interface ModelOutcome {
  tokens: number;
  error?: UpstreamError;
  /** Whether the agent disconnected before the end. This is not an error of the API. */
  cut?: boolean;
}

/** A `BudgetCheck`. `isConfined`: the model's API must not reach hosts for the sandbox, because its network is restricted. */
export type Admission = Exclude<BudgetCheck, Admitted> | (Admitted & { isConfined: boolean });
/** The egress reports a request under way at this interval. */
export const REPORT_MS = 20_000;

export interface BudgetKeeper {
  admitModelCall(key: string): Promise<Admission>;
  renewModelCall(call: ModelCall): void;
  finishModelCall(call: ModelCall, outcome: ModelOutcome): void;
}
