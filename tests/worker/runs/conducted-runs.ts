/** The runs of an actor with SQLite, a real bucket, and executions that the test controls. */
import { runInDurableObject } from "cloudflare:test";
import { vi } from "vitest";
import type { Stream } from "../../../container/sandboxd/protocol.ts";
import type { ActiveRun } from "../../../src/runs/active-run.ts";
import type { Executor, Resumer } from "../../../src/runs/executor.ts";
import type { Allowance, End, Execution } from "../../../src/runs/run-types.ts";
import { Runs, type RunsHost } from "../../../src/runs/runs.ts";
import { actorOf, bucket } from "../support.ts";

export const MiB = 1024 * 1024;

/** Fails to resume any run. */
export const nothing: Resumer = {
  resume: () => {
    throw new Error("no run can be resumed here");
  },
};

export function executorOf(work: (run: ActiveRun) => Execution): Executor<Allowance> {
  return { kind: "command", start: work, ...nothing };
}

export const ALLOWANCE = { timeoutMs: 60_000 };

/** The runs of a new actor with SQLite, a real bucket, and executions that the test controls. */
export async function withRuns(
  name: string,
  work: (runs: Runs, host: RunsHost, sql: SqlStorage) => Promise<void>,
  changes: Partial<RunsHost> = {},
): Promise<void> {
  await runInDurableObject(await actorOf(name), async (_sandbox, { storage }) => {
    const host: RunsHost = {
      quota: {
        take: async (seconds) => ({ seconds }),
        takeUnchecked: (seconds) => ({ seconds }),
        giveBack: () => undefined,
      },
      lifecycle: {
        admitRun: async () => undefined,
        release: () => undefined,
        explainError: async (error) => error,
      },
      completeEnd: (end) => end,
      sql: storage.sql,
      sandbox: () => name,
      principalID: () => name,
      objects: { bucket: bucket, prefix: (id) => `hash/${id}/` },
      logCapBytes: 16 * MiB,
      background: (done) => void done.catch(() => undefined),
      logError: () => undefined,
      removeTaskFiles: async () => undefined,
      ...changes,
    };
    await work(new Runs(host), host, storage.sql);
  });
}

/** An execution that the test controls. */
export class Conducted implements Execution {
  readonly #end = Promise.withResolvers<End>();
  run!: ActiveRun;
  cancels = 0;

  get done(): Promise<End> {
    return this.#end.promise;
  }

  async cancel(): Promise<void> {
    this.cancels++;
  }

  print(stream: Stream, content: string | Uint8Array): void {
    this.run.output(stream, typeof content === "string" ? new TextEncoder().encode(content) : content);
  }

  end(end: End): void {
    this.#end.resolve(end);
  }

  fail(error: unknown): void {
    this.#end.reject(error);
  }
}

export async function start(runs: Runs, waitMs = 0) {
  const execution = new Conducted();
  const executor = executorOf((run) => {
    execution.run = run;
    return execution;
  });
  const options = { waitUntil: Date.now() + waitMs, namesID: true };
  const ended = runs.start(executor, "title", ALLOWANCE, options);
  if (waitMs > 0) await vi.waitUntil(() => execution.run as ActiveRun | undefined);
  else await ended;
  return { id: execution.run.record.id, execution, ended };
}

/** Compares without printing the difference, because that takes minutes for megabytes. */
export function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

/** Bytes that encode their position. */
export function pattern(length: number, seed: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let at = 0; at < words.length; at++) words[at] = Math.imul(at + 1, 2654435761) ^ seed;
  return new Uint8Array(words.buffer, 0, length);
}

export const objectsOf = async (id: string) => (await bucket.list(`hash/${id}/`)).keys;
export const rowsOf = (sql: SqlStorage, id: string) =>
  sql
    .exec<{ count: number; bytes: number }>(
      "SELECT count(*) AS count, coalesce(sum(length(data)), 0) AS bytes FROM log WHERE run = ?",
      id,
    )
    .one();
