/** Measures how much of the disk a sandbox uses: soon after a call, at most once a minute, without delaying calls. */
import type { Lifecycle } from "./lifecycle.ts";

/** A measurement waits until the sandbox was unused for this long, but at most MEASURE_INTERVAL_MS. */
const MEASURE_DEBOUNCE_MS = 3000;

const MEASURE_INTERVAL_MS = 60_000;

interface DiskUsageHost {
  lifecycle: Pick<Lifecycle, "container">;
  measure(): Promise<void>;
  background(work: Promise<unknown>): void;
}

export class DiskUsage {
  readonly #host: DiskUsageHost;
  #usedAt = 0;
  #measuredAt = 0;
  #dueAt = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(host: DiskUsageHost) {
    this.#host = host;
  }

  noteUse(): void {
    const now = Date.now();
    this.#usedAt = now;
    if (this.#timer !== null) return;
    this.#dueAt = Math.max(now, this.#measuredAt + MEASURE_INTERVAL_MS - MEASURE_DEBOUNCE_MS);
    this.#measureIn(this.#dueAt - now + MEASURE_DEBOUNCE_MS);
  }

  onRunEnd(): void {
    this.noteUse();
  }

  onContainerEnd(): void {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#measuredAt = 0;
  }

  #measureIn(ms: number): void {
    this.#timer = setTimeout(() => this.#measure(), ms);
  }

  #measure(): void {
    this.#timer = null;
    if (!this.#host.lifecycle.container) return;
    const now = Date.now();
    const quiet = now - this.#usedAt;
    if (quiet < MEASURE_DEBOUNCE_MS && now - this.#dueAt < MEASURE_INTERVAL_MS)
      return this.#measureIn(MEASURE_DEBOUNCE_MS - quiet);
    this.#measuredAt = now;
    // The next use schedules another measurement, so a failure needs no retry.
    this.#host.background(this.#host.measure().catch(() => undefined));
  }
}
