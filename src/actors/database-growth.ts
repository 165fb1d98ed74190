/**
 * Limits how fast the databases of a principal's sandboxes grow. While the server runs, their files never shrink: what is deleted leaves
 * pages that only the same sandbox can use again, and `MAX_STORAGE_MB` does not count these pages.
 */
import type { Pace } from "../../container/sandboxd/pace.ts";
import { pacesOf } from "../shared/per-principal.ts";
import { storedTooMuch } from "./texts.ts";

/** In parts of the limit of stored results: the whole limit at once, and again each day. Each process counts by itself. */
const PACE = { burst: 1, perSecond: 1 / 86_400 };

/** Also with a low limit, databases may grow by this many bytes, because output waits there for R2. */
const LEAST_BYTES = 64 * 1024 * 1024;

const paces = pacesOf(PACE);

interface GrowthHost {
  sql: Pick<SqlStorage, "databaseSize">;
  principalID: () => string | undefined;
  /** The limit of stored results, in bytes. */
  storageBytes: number;
}

export class DatabaseGrowth {
  readonly #host: GrowthHost;
  /** The most bytes that the database has had, as far as this actor knows. */
  #most: number;

  constructor(host: GrowthHost) {
    this.#host = host;
    this.#most = host.sql.databaseSize;
  }

  get #pace(): Pace {
    return paces.of(this.#host.principalID() ?? "");
  }

  /** Counts what the database has grown since the last call. */
  count(): void {
    const size = this.#host.sql.databaseSize;
    if (size <= this.#most) return;
    this.#pace.take((size - this.#most) / Math.max(this.#host.storageBytes, LEAST_BYTES));
    this.#most = size;
  }

  get isExceeded(): boolean {
    return this.#pace.take(0) > 0;
  }

  /** @throws {ToolError} `quota_exceeded` if the databases have grown too much */
  check(): void {
    if (this.isExceeded) throw storedTooMuch();
  }
}
