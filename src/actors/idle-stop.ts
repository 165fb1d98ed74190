/**
 * Decides when an idle container is stopped. An open preview postpones the stop. If the operator allows it (`KEEP_BUSY`), busy
 * background processes postpone the stop too. They postpone it for `KEEP_BUSY` hours at most, because code in the sandbox can
 * fake being busy.
 */
import { HOUR_MS } from "../shared/days.ts";
import type { FileOperations } from "../container/file-operations.ts";
import { elapsedMs } from "../shared/timers.ts";
import type { AccountLink } from "./account-link.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { ContainerPlatform } from "./platform/platform.ts";
import type { Previews } from "./previews.ts";
import { type KV, StoredValue } from "./stored-value.ts";
import { tooManyIdleMinutes } from "./texts.ts";

const MINUTE_MS = 60_000;

/** The time between two attempts to stop an idle container, each of which scans all files. */
const RETRY_MS = 60_000;

/** Processes that use at least this share of a processor count as busy. An idle server that polls files or timers uses less. */
const BUSY_SHARE = 0.01;

interface IdleStopHost {
  kv: KV;
  platform: Pick<ContainerPlatform, "noteUse">;
  account: Pick<AccountLink, "unusedMs">;
  lifecycle: Pick<Lifecycle, "isInUse" | "stopIfUnused">;
  previews: Pick<Previews, "isInUse">;
  /** File operations that do not count as use of the sandbox. */
  glancing: FileOperations;
  limits: { minutes: number; maxMinutes: number; busyHours: number };
}

export class IdleStop {
  readonly #host: IdleStopHost;
  /** The last time that the container was not stopped although it was idle; milliseconds since the epoch. */
  #postponedAt = -Infinity;
  readonly #choice: StoredValue<number>;

  constructor(host: IdleStopHost) {
    this.#host = host;
    this.#choice = new StoredValue(host.kv, "idle_minutes");
  }

  /** The configured minutes; undefined for the operator's default. */
  get choice(): number | undefined {
    return this.#choice.value;
  }

  get minutes(): number {
    const { minutes, maxMinutes } = this.#host.limits;
    return Math.min(this.choice ?? minutes, maxMinutes);
  }

  check(minutes: number): void {
    const { maxMinutes } = this.#host.limits;
    if (minutes <= maxMinutes) return;
    throw tooManyIdleMinutes(minutes, maxMinutes);
  }

  put(minutes: number | undefined): void {
    this.#choice.value = minutes;
    this.#host.platform.noteUse();
  }

  leftMs(): number {
    const idleMs = this.minutes * MINUTE_MS;
    if (this.#host.lifecycle.isInUse) return idleMs;
    return Math.max(0, idleMs - this.#host.account.unusedMs, RETRY_MS - elapsedMs(this.#postponedAt));
  }

  /** Stops the idle container, unless an open preview or busy processes postpone the stop, or it cannot be saved. */
  async onIdleTimeout(): Promise<void> {
    if (await this.#host.previews.isInUse()) return;
    const { account, limits, lifecycle } = this.#host;
    const mayPostpone = account.unusedMs < this.minutes * MINUTE_MS + limits.busyHours * HOUR_MS;
    const isBusy = mayPostpone && (await this.isBusy());
    if (isBusy || !(await lifecycle.stopIfUnused())) this.#postponedAt = Date.now();
  }

  /** Whether processes have connections, or used the processor since the last check of this container. */
  async isBusy(): Promise<boolean> {
    if (this.#host.limits.busyHours === 0) return false;
    const work = await this.#host.glancing.call("work", {}).catch(() => undefined);
    if (!work) return false;
    const { cpuMs, overMs, connections } = work;
    return connections > 0 || (overMs > 0 && cpuMs / overMs >= BUSY_SHARE);
  }
}
