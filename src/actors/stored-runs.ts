/** How much the runs of a principal's sandboxes store. Has the sandboxes delete runs that expire, or that exceed the principal's limit. */
import type { Stored } from "../runs/run-store.ts";
import type { Limits } from "../shared/config.ts";
import { SerialQueue } from "../shared/queue.ts";
import { countdown, waitAtMost } from "../shared/timers.ts";
import type { ManagedSandbox, Owner } from "./account-calls.ts";
import type { SandboxRegistry } from "./sandbox-registry.ts";

/** How long an eviction waits for one sandbox. It includes the wait for a save, 40 s. */
const EVICTION_MS = 60_000;

/** How long a sandbox may take to delete its expired runs before the others have their turn. It goes on meanwhile. */
const EXPIRY_MS = 2000;

/** The most sandboxes that are asked for expired runs at once, because their actors stay in memory, and how long that may take. */
const EXPIRED_AT_ONCE = 200;
const EXPIRE_ALL_MS = 60_000;

interface StoredRunsHost {
  sandboxes: Pick<SandboxRegistry, "putStored" | "storedBytes" | "oldestStored" | "storedBefore">;
  limits: Pick<Limits, "storageBytes">;
  /** How long a record outlives its run. */
  keepMs: number;
  actor(principalID: string, sandbox: string): Promise<Pick<DurableObjectStub<ManagedSandbox>, "evictRuns">>;
}

export class StoredRuns {
  readonly #host: StoredRunsHost;
  readonly #evictions = new SerialQueue();

  constructor(host: StoredRunsHost) {
    this.#host = host;
  }

  /**
   * Evicts the oldest ended runs while the principal's limit is exceeded. Returns true if nothing more can be evicted and
   * the limit is still exceeded.
   */
  evict(principalID: string): Promise<boolean> {
    // One after another: otherwise each report would evict runs for the same excess.
    return this.#evictions.run(() => this.#evict(principalID));
  }

  async #evict(principalID: string): Promise<boolean> {
    const { sandboxes, limits } = this.#host;
    const tried: string[] = [];
    const excess = () => sandboxes.storedBytes() - limits.storageBytes;
    for (let excessBytes = excess(); excessBytes > 0; excessBytes = excess()) {
      const [first, next] = sandboxes.oldestStored(tried);
      if (!first) return true;
      const before = (next?.oldest ?? Date.now()) + 1;
      const owner = { principalID, sandbox: first.sandbox };
      const remaining = await this.#evictFrom(owner, { bytes: excessBytes, before, waitMs: EVICTION_MS });
      // This sandbox evicted nothing, so the loop does not ask it again.
      if (!remaining || remaining.oldest === first.oldest) tried.push(first.sandbox);
    }
    return false;
  }

  /** Returns what the sandbox still stores; undefined if it fails or takes too long. */
  async #evictFrom(
    { principalID, sandbox }: Owner,
    { bytes, before, waitMs }: { bytes: number; before: number; waitMs: number },
  ): Promise<Stored | undefined> {
    const stub = await this.#host.actor(principalID, sandbox);
    const evicted: Promise<Stored | undefined> = stub.evictRuns(bytes, before).catch(() => undefined);
    const remaining = await waitAtMost(waitMs, evicted);
    if (remaining) this.#host.sandboxes.putStored(sandbox, remaining);
    return remaining;
  }

  /** When the next run expires, in milliseconds since the epoch. */
  get nextExpiry(): number | undefined {
    const [first] = this.#host.sandboxes.oldestStored([]);
    return first && first.oldest + this.#host.keepMs;
  }

  /** Deletes the expired runs of some sandboxes. The next call goes on, also with a sandbox that failed or was too slow. */
  async expire(principalID: string): Promise<void> {
    const { sandboxes, keepMs } = this.#host;
    const before = Date.now() - keepMs;
    const leftMs = countdown(EXPIRE_ALL_MS);
    for (const sandbox of sandboxes.storedBefore(before, EXPIRED_AT_ONCE)) {
      await this.#evictFrom({ principalID, sandbox }, { bytes: Infinity, before, waitMs: EXPIRY_MS });
      if (leftMs() <= 0) return;
    }
  }
}
