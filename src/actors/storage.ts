/** Reports to the account how much a sandbox's runs have stored: the limit is the principal's, over all sandboxes. */
import type { Runs } from "../runs/runs.ts";
import type { Stored } from "../runs/run-store.ts";

/** How long after a change the account gets a report, and how often while runs go on, milliseconds. */
const REPORT_MS = 5000;

export interface StorageHost {
  runs: Pick<Runs, "stored" | "isBusy" | "isFull">;
  /** Reports to the account; answers whether the storage is full after everything removable was removed. */
  report(stored: Stored): Promise<boolean>;
  background(work: Promise<unknown>): void;
}

export class Storage {
  readonly #host: StorageHost;
  #isDue = false;
  #reportedBytes = -1;

  constructor(host: StorageHost) {
    this.#host = host;
  }

  /** A run has begun or ended, or something was removed. */
  changed(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    setTimeout(() => {
      this.#isDue = false;
      this.#host.background(this.report().catch(() => this.changed()));
      // Their logs grow.
      if (this.#host.runs.isBusy) this.changed();
    }, REPORT_MS);
  }

  async report(): Promise<void> {
    const { runs } = this.#host;
    const stored = runs.stored();
    if (stored.bytes === this.#reportedBytes) return;
    runs.isFull = await this.#host.report(stored);
    this.#reportedBytes = stored.bytes;
  }
}
