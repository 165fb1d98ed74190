/** Runs within the principal's quota: each holds a stake of the sandbox's lease from its start to its end. */
import type { Allowance, Execution } from "../runs/run.ts";
import { type Lease, type Stake, cutShort } from "./lease.ts";
import type { Lifecycle } from "./container-lifecycle.ts";
import type { Limits } from "../shared/config.ts";

/** What a run has been granted. */
export interface Granted {
  /** How long it may run, which may be less than it asked for. */
  allowance: Allowance;
  /** Gives the stake back when the execution has ended. */
  held(execution: Execution): Execution;
  /** Gives it back for a run that was not started. */
  cancel(): void;
}

export class Stakes {
  readonly #lease: Lease;
  readonly #lifecycle: Lifecycle;
  readonly #limits: Limits;

  constructor(lease: Lease, lifecycle: Lifecycle, limits: Limits) {
    this.#lease = lease;
    this.#lifecycle = lifecycle;
    this.#limits = limits;
  }

  /** @throws {ToolError} `quota_exceeded` */
  async take(timeoutMs: number): Promise<Granted> {
    const stake = await this.#lease.take(Math.ceil(timeoutMs / 1000));
    const grantedMs = stake.seconds * 1000;
    const allowance =
      grantedMs < timeoutMs
        ? { timeoutMs: grantedMs, cut: cutShort(stake.seconds, this.#limits, Date.now()) }
        : { timeoutMs };
    return {
      allowance,
      held: (execution) => this.#held(stake, execution, Date.now()),
      cancel: () => this.#lease.give(stake, 0),
    };
  }

  /** Holds a stake for a run that an earlier actor started. @param deadline of the run; both since the epoch, milliseconds */
  resumed(execution: Execution, deadline: number, startedAt: number): Execution {
    const stake = this.#lease.hold(Math.max(1, Math.ceil((deadline - startedAt) / 1000)));
    return this.#held(stake, execution, startedAt);
  }

  #held(stake: Stake, execution: Execution, startedAt: number): Execution {
    const give = () => this.#lease.give(stake, (Date.now() - startedAt) / 1000);
    execution.done.then(give, give);
    const done = execution.done.catch(async (error) => {
      throw await this.#lifecycle.explained(error);
    });
    return { ...execution, done };
  }
}
