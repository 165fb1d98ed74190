/** Deletes what ended runs left: their files in the sandbox soon, their records and logs when they expire. */
import type { Connection } from "../container/connection.ts";
import { localID } from "../runs/id.ts";
import type { Runs } from "../runs/runs.ts";
import type { RunRecord } from "../runs/run-store.ts";
import type { ContainerPlatform } from "./platform/platform.ts";

const CLEAN_BATCH = 16;

const CLEAN_BYTES = 1024 * 1024;

/** The pause before a failed sweep is retried, in milliseconds. */
const SWEEP_RETRY_MS = 3_600_000;

const PLANNED = "sweep";

export interface RetentionHost {
  kv: Pick<SyncKvStorage, "get" | "put" | "delete">;
  connection: Connection;
  runs: Pick<Runs, "sweep">;
  platform: Pick<ContainerPlatform, "isRunning" | "scheduleSweep">;
  /** How long a record is kept after its run, in milliseconds. */
  keepMs: number;
  background(work: Promise<unknown>): void;
}

export class Retention {
  readonly #host: RetentionHost;
  #toClean: string[] = [];
  #isPlanned: boolean;

  constructor(host: RetentionHost) {
    this.#host = host;
    this.#isPlanned = host.kv.get(PLANNED) !== undefined;
  }

  runEnded(run: RunRecord, hasFiles: boolean): void {
    const { connection, keepMs, background } = this.#host;
    if (hasFiles && this.#host.platform.isRunning) {
      this.#toClean.push(localID(run.id));
      if (this.#toClean.length >= CLEAN_BATCH || run.logBytes + run.droppedBytes > CLEAN_BYTES) {
        const ids = this.#toClean.splice(0);
        background(connection.send({ type: "forget", ids }).catch(() => undefined));
      }
    }
    if (!this.#isPlanned) background(this.#plan(Date.now() + keepMs));
  }

  /** The container's files are gone, so none are left to delete. */
  ended(): void {
    this.#toClean = [];
  }

  async sweep(): Promise<void> {
    this.#host.kv.delete(PLANNED);
    this.#isPlanned = false;
    // A later sweep deletes what the bucket refused to delete now.
    const next = await this.#host.runs.sweep().catch(() => Date.now() + SWEEP_RETRY_MS);
    if (next !== undefined) await this.#plan(next);
  }

  async #plan(at: number): Promise<void> {
    this.#host.kv.put(PLANNED, at);
    this.#isPlanned = true;
    await this.#host.platform.scheduleSweep(new Date(at + 1000));
  }
}
