/** When it is measured how much a sandbox holds: soon after it was used, seldom, and never on the path of a call. */

/** How long a sandbox is let be after its last use, milliseconds, unless it is used without a pause. */
const QUIET_MS = 3000;

/** How long it takes from one measurement to the next at least, milliseconds. */
const EVERY_MS = 60_000;

export interface DiskUsageHost {
  /** Whether there is a container: none is started for this. */
  running(): boolean;
  /** Measures, and tells the account. */
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

  /** A call or a run has used the sandbox. What is measured after it is measured once. */
  used(): void {
    const now = Date.now();
    this.#usedAt = now;
    if (this.#timer !== null) return;
    this.#dueAt = Math.max(now, this.#measuredAt + EVERY_MS - QUIET_MS);
    this.#measureIn(this.#dueAt - now + QUIET_MS);
  }

  /** The container is gone, and what it held. */
  containerGone(): void {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#measuredAt = 0;
  }

  #measureIn(ms: number): void {
    this.#timer = setTimeout(() => this.#measure(), ms);
  }

  #measure(): void {
    this.#timer = null;
    if (!this.#host.running()) return;
    const now = Date.now();
    const quiet = now - this.#usedAt;
    if (quiet < QUIET_MS && now - this.#dueAt < EVERY_MS) return this.#measureIn(QUIET_MS - quiet);
    this.#measuredAt = now;
    // One that fails is made up for after the next use.
    this.#host.background(this.#host.measure().catch(() => undefined));
  }
}
