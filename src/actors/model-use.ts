/** The model use of a sandbox's runs. Each run has a budget, and all share their principal's daily tokens. */
import type { Admission, BudgetKeeper, ModelOutcome, ModelCall } from "../container/model-calls.ts";
import type { Runs } from "../runs/runs.ts";
import type { TaskBudgets } from "../tasks/budget.ts";
import type { TaskExecutor } from "../tasks/task-executor.ts";
import type { AccountLink } from "./account-link.ts";
import type { SandboxNetwork } from "./network.ts";
import { quotaError } from "./texts.ts";
import { MODEL_CALL_TEXTS } from "../tasks/texts.ts";

interface ModelUseHost {
  budgets: TaskBudgets;
  tasks: Pick<TaskExecutor, "finishModelCall">;
  runs: Pick<Runs, "isRunning">;
  network: Pick<SandboxNetwork, "policy">;
  account: AccountLink;
  background(work: Promise<unknown>): void;
}

export class ModelUse implements BudgetKeeper {
  readonly #host: ModelUseHost;

  constructor(host: ModelUseHost) {
    this.#host = host;
  }

  /** @throws {ToolError} `quota_exceeded` if today's tokens are used up */
  async requireTokens(): Promise<void> {
    const { used, allowed } = await this.#reportTokens();
    if (used >= allowed) throw quotaError({ limit: "modelTokensPerDay", allowed, used });
  }

  async admitModelCall(key: string): Promise<Admission> {
    const { budgets, runs, network } = this.#host;
    const check = await budgets.admit(key);
    if ("refused" in check) return check;
    const { call, trace } = check;
    if (!runs.isRunning(call.run)) return { refused: MODEL_CALL_TEXTS.ended };
    const { used, allowed } = await this.#reportTokens().catch((error: unknown) => {
      // Nothing sends this request, so it must not count as one in progress.
      budgets.finishRequest(call, { tokens: 0, cut: true });
      throw error;
    });
    const isConfined = network.policy.internet !== "full";
    if (used < allowed) return { call, trace, isConfined };
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

  async #reportTokens(): Promise<{ used: number; allowed: number }> {
    const { budgets, account } = this.#host;
    const unreported = budgets.takeUnreported();
    try {
      return await account.account().spendModelTokens(unreported);
    } catch (error) {
      budgets.putBack(unreported);
      throw error;
    }
  }
}
