/** Tells the account what a sandbox's runs have in store, which counts for all sandboxes of the principal. */
import type { Stored } from "../runs/store.ts";

/** How long after a change it is told, and how often while runs go on, milliseconds. */
const TELL_MS = 5000;

export interface StorageHost {
  stored(): Stored;
  /** Whether runs are under way, whose logs grow. */
  isBusy(): boolean;
  /** Tells the account; answers whether the storage is full although all was given up that can be. */
  tell(stored: Stored): Promise<boolean>;
  /** Takes the account's answer. */
  full(isFull: boolean): void;
  background(work: Promise<unknown>): void;
}

export class Storage {
  readonly #host: StorageHost;
  #isDue = false;
  #told = -1;

  constructor(host: StorageHost) {
    this.#host = host;
  }

  /** A run has begun or ended, or something was removed. */
  changed(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    setTimeout(() => {
      this.#isDue = false;
      this.#host.background(this.tell().catch(() => this.changed()));
      if (this.#host.isBusy()) this.changed();
    }, TELL_MS);
  }

  async tell(): Promise<void> {
    const stored = this.#host.stored();
    if (stored.bytes === this.#told) return;
    this.#host.full(await this.#host.tell(stored));
    this.#told = stored.bytes;
  }
}
