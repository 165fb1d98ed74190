/** Reports stored bytes to the account. The limit is the principal's, for all sandboxes. */
import type { Runs } from "../runs/runs.ts";
import type { Stored } from "../runs/run-store.ts";

/** How soon after a change the account gets a report, and how often during runs. In milliseconds. */
const REPORT_MS = 5000;

export interface StorageHost {
  runs: Pick<Runs, "stored" | "hasActive" | "isFull">;
  /** Reports to the account. Returns whether storage is full even after evictions. */
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

  runsChanged(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    setTimeout(() => {
      this.#isDue = false;
      this.#host.background(this.report().catch(() => this.runsChanged()));
      // Running runs' logs grow.
      if (this.#host.runs.hasActive) this.runsChanged();
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
