/**
 * The pace of the messages that a sandbox's programs send to the Worker. All sandboxes of a principal may share the Worker's thread,
 * so they also have a limit together. With only their own limits, ten sandboxes could send 50,000 messages at once, and then 20,000
 * a second: 0.4 s of the thread in each second.
 */
import { Pace } from "../../container/sandboxd/pace.ts";
import { PerPrincipal } from "./per-principal.ts";

/**
 * The rate of all sandboxes of a principal, in each process. Measured: 50 runs in ten sandboxes that print all the time send 2,200
 * messages a second, 3,100 in the first seconds. 200 runs of code a second need fewer than that.
 */
const TOGETHER = { burst: 10_000, perSecond: 4000 };

/** How much a sandbox took beyond an equal part of the rate, and when that was counted. */
interface Excess {
  amount: number;
  at: number;
}

/** Above the limit of all, refuses only the sandboxes that took more than an equal part. So one cannot break the connections of others. */
class SharedPace {
  readonly #together = new Pace(TOGETHER);
  /** The sandboxes that sent messages since the whole burst was last available. Those without an excess have no part. */
  readonly #excess = new Map<SandboxPace, Excess>();

  get isFull(): boolean {
    return this.#together.isFull;
  }

  tryTake(sandbox: SandboxPace, amount: number): boolean {
    if (!this.#excess.has(sandbox)) this.#removeQuiet();
    this.#excess.set(sandbox, { amount: this.excessOf(sandbox) + amount, at: performance.now() });
    return this.#together.tryTake(amount) || this.excessOf(sandbox) <= TOGETHER.burst / this.#excess.size;
  }

  #removeQuiet(): void {
    for (const sandbox of this.#excess.keys()) if (this.excessOf(sandbox) === 0) this.#excess.delete(sandbox);
  }

  excessOf(sandbox: SandboxPace): number {
    if (this.isFull) this.#excess.clear();
    const { amount, at } = this.#excess.get(sandbox) ?? { amount: 0, at: 0 };
    const part = TOGETHER.perSecond / this.#excess.size;
    return amount === 0 ? 0 : Math.max(0, amount - (part * Math.max(0, performance.now() - at)) / 1000);
  }
}

const principals = new PerPrincipal(
  () => new SharedPace(),
  (pace) => pace.isFull,
);

export class SandboxPace extends Pace {
  readonly #principalID: () => string | undefined;

  constructor(options: { burst: number; perSecond: number }, principalID: () => string | undefined) {
    super(options);
    this.#principalID = principalID;
  }

  override tryTake(amount: number): boolean {
    return super.tryTake(amount) && this.#shared.tryTake(this, amount);
  }

  /** Whether the sandbox may take its whole burst, or its part of it. */
  override get isFull(): boolean {
    return super.isFull && this.#shared.excessOf(this) === 0;
  }

  get #shared(): SharedPace {
    return principals.of(this.#principalID() ?? "");
  }
}
