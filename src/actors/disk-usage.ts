/** Measures how much disk a sandbox uses: soon after it was used, once a minute at most, and never on the path of a call. */
import type { ContainerPlatform } from "./platform/platform.ts";

/** A measurement waits for so long a pause in the sandbox's use, milliseconds, but no longer than MEASURE_INTERVAL_MS. */
const MEASURE_DEBOUNCE_MS = 3000;

/** The shortest time between two measurements, milliseconds. */
const MEASURE_INTERVAL_MS = 60_000;

export interface DiskUsageHost {
  /** None is started for a measurement. */
  platform: Pick<ContainerPlatform, "isRunning">;
  /** Measures and reports to the account. */
  measure(): Promise<void>;
  background(work: Promise<unknown>): void;
}

export class DiskUsage {
  readonly #host: DiskUsageHost;
  #usedAt = 0;
  #measuredAt = 0;
  /** Since when a measurement is due. */
  #dueAt = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(host: DiskUsageHost) {
    this.#host = host;
  }

  /** A call or a run has used the sandbox: plans one measurement, unless one is planned. */
  used(): void {
    const now = Date.now();
    this.#usedAt = now;
    if (this.#timer !== null) return;
    this.#dueAt = Math.max(now, this.#measuredAt + MEASURE_INTERVAL_MS - MEASURE_DEBOUNCE_MS);
    this.#measureIn(this.#dueAt - now + MEASURE_DEBOUNCE_MS);
  }

  /** The container is gone, and what it held. */
  ended(): void {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#measuredAt = 0;
  }

  #measureIn(ms: number): void {
    this.#timer = setTimeout(() => this.#measure(), ms);
  }

  #measure(): void {
    this.#timer = null;
    if (!this.#host.platform.isRunning) return;
    const now = Date.now();
    const quiet = now - this.#usedAt;
    if (quiet < MEASURE_DEBOUNCE_MS && now - this.#dueAt < MEASURE_INTERVAL_MS)
      return this.#measureIn(MEASURE_DEBOUNCE_MS - quiet);
    this.#measuredAt = now;
    // The next use plans another, so a failed measurement needs no retry.
    this.#host.background(this.#host.measure().catch(() => undefined));
  }
}
