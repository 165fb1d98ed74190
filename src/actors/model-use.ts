/** The model use of a sandbox's runs. Each run has a budget, and all share their principal's daily tokens. */
import type { Admission, BudgetKeeper, ModelOutcome, ModelCall } from "../container/model-calls.ts";
import type { UsedByDay } from "../shared/days.ts";
import type { TaskBudgets } from "../tasks/budget.ts";
import type { TaskExecutor } from "../tasks/task-executor.ts";
import { quotaError } from "./texts.ts";

export interface ModelUseHost {
  budgets: TaskBudgets;
  tasks: Pick<TaskExecutor, "finishModelCall">;
  isRunning(run: string): boolean;
  /** Whether the sandbox is restricted to some hosts. */
  isConfined(): boolean;
  /** Counts tokens for the principal. Returns today's total. */
  spend(tokens: UsedByDay): Promise<{ used: number; allowed: number }>;
  background(work: Promise<unknown>): void;
}

export class ModelUse implements BudgetKeeper {
  readonly #host: ModelUseHost;

  constructor(host: ModelUseHost) {
    this.#host = host;
  }

  /** @throws {ToolError} `quota_exceeded` if today's tokens are used up */
  async mayBegin(): Promise<void> {
    const { used, allowed } = await this.#reportTokens();
    if (used >= allowed) throw quotaError({ limit: "modelTokensPerDay", allowed, used });
  }

  async admitModelCall(key: string): Promise<Admission> {
    const { budgets, isRunning, isConfined } = this.#host;
    const check = await budgets.admit(key);
    if ("refused" in check) return check;
    const { call, trace } = check;
    if (!isRunning(call.run)) return { refused: "The task with this key has ended." };
    const { used, allowed } = await this.#reportTokens();
    if (used < allowed) return { call, trace, isConfined: isConfined() };
    budgets.refuseForToday(call);
    return { refused: quotaError({ limit: "modelTokensPerDay", allowed, used }).message };
  }

  renewModelCall(call: ModelCall): void {
    this.#host.budgets.renewRequest(call);
  }

  finishModelCall(call: ModelCall, outcome: ModelOutcome): void {
    const { budgets, tasks, background } = this.#host;
    budgets.finishRequest(call, outcome);
    tasks.finishModelCall(call, outcome);
    // The next report includes the tokens that this one could not deliver.
    background(this.#reportTokens().catch(() => undefined));
  }

  /** Reports new tokens. Returns today's total. */
  async #reportTokens(): Promise<{ used: number; allowed: number }> {
    const { budgets, spend } = this.#host;
    const unreported = budgets.takeUnreported();
    try {
      return await spend(unreported);
    } catch (error) {
      budgets.putBack(unreported);
      throw error;
    }
  }
}
