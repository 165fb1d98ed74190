/** Requests of a task to a model, between the egress that forwards them and the actor that keeps the budget. */
import type { TraceContext } from "../shared/trace.ts";

/** A request to the model that was forwarded. */
export interface ModelCall {
  run: string;
  /** Of the run's requests, from 1 on. */
  number: number;
}

/** The answer to a request to the model; `busy` when the same request may succeed in a moment. */
export type BudgetCheck = Admitted | { refused: string; busy?: boolean };

/** A request that may be forwarded, and the trace of the task, if its caller named one. */
interface Admitted {
  call: ModelCall;
  trace?: TraceContext | undefined;
}

/** An error that the model's API answered with. */
export interface UpstreamError {
  status: number;
  message: string;
}

/** How the model's API answered. */
export interface ModelOutcome {
  /** What it took. */
  tokens: number;
  error?: UpstreamError;
  /** The agent hung up before the end, which is no error of the API. */
  cut?: boolean;
}

/** As `BudgetCheck`, and whether the sandbox may connect to any host, which the API may then do for it. */
export type Admission = Exclude<BudgetCheck, Admitted> | (Admitted & { isConfined: boolean });

/** How often the egress reports that a request is still under way, milliseconds. */
export const REPORT_MS = 20_000;

/** What the egress asks of a sandbox's actor. */
export interface BudgetKeeper {
  admitModelCall(key: string): Promise<Admission>;
  renewModelCall(call: ModelCall): void;
  finishModelCall(call: ModelCall, outcome: ModelOutcome): void;
}
