import { runInDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";
import type { Executor, Resumer } from "../../../src/runs/executor.ts";
import type { Allowance, End, Execution, Stream } from "../../../src/runs/run.ts";
import { LogWriter } from "../../../src/runs/log.ts";
import { type LogPage, Runs, type RunsHost } from "../../../src/runs/runs.ts";
import type { ActiveRun } from "../../../src/runs/active-run.ts";
import { DAY_MS } from "../../../src/shared/days.ts";
import { actorOf, bucket } from "../support.ts";

const MiB = 1024 * 1024;

/** No run of these tests is resumed. */
const nothing: Resumer = {
  resume: () => {
    throw new Error("nothing is resumed here");
  },
};

/** Has a run executed as the test says. */
function executing(work: (run: ActiveRun) => Execution): Executor<Allowance> {
  return { kind: "command", start: work, ...nothing };
}

const ALLOWANCE = { timeoutMs: 60_000 };

const objectsIn = (store: R2Bucket): RunsHost["objects"] => ({
  bucket: store,
  prefix: (id) => `hash/${id}/`,
});

/** Runs on the SQLite of an actor of their own and a real bucket, with executions that the test conducts. */
async function withRuns(
  name: string,
  work: (runs: Runs, host: RunsHost, sql: SqlStorage) => Promise<void>,
  changes: Partial<RunsHost> = {},
): Promise<void> {
  await runInDurableObject(await actorOf(name), async (_sandbox, { storage }) => {
    const host: RunsHost = {
      executors: { code: nothing, command: nothing, task: nothing },
      quota: {
        take: async (seconds) => ({ seconds }),
        hold: (seconds) => ({ seconds }),
        give: () => undefined,
      },
      ready: async () => undefined,
      completed: (end) => end,
      explained: async (error) => error,
      sql: storage.sql,
      sandbox: () => name,
      objects: objectsIn(bucket),
      logCapBytes: 16 * MiB,
      keepMs: DAY_MS,
      background: (done) => void done.catch(() => undefined),
      failed: () => undefined,
      taskRemoved: async () => undefined,
      unneeded: () => undefined,
      ended: () => undefined,
      ...changes,
    };
    await work(new Runs(host), host, storage.sql);
  });
}

/** An execution in the test's hands. */
class Conducted implements Execution {
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

async function start(runs: Runs): Promise<{ id: string; execution: Conducted }> {
  const execution = new Conducted();
  const executor = executing((run) => {
    execution.run = run;
    return execution;
  });
  const { id } = await runs.start(executor, "title", ALLOWANCE, { waitUntil: 0, namesID: true });
  return { id, execution };
}

/** Bytes that tell where they belong. */
function pattern(length: number, seed: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let at = 0; at < words.length; at++) words[at] = Math.imul(at + 1, 2654435761) ^ seed;
  return new Uint8Array(words.buffer, 0, length);
}

async function whole(runs: Runs, id: string, pageBytes = 3 * MiB): Promise<Record<Stream, Uint8Array>> {
  const parts: LogPage["pieces"] = [];
  for (let cursor = 0; ;) {
    const page = await runs.log(id, cursor, pageBytes);
    if (page.next === cursor) break;
    parts.push(...page.pieces);
    cursor = page.next;
  }
  const of = async (stream: Stream) =>
    new Uint8Array(
      await new Blob(
        parts.filter((part) => part.stream === stream).map(({ bytes }) => bytes.slice()),
      ).arrayBuffer(),
    );
  return { stdout: await of("stdout"), stderr: await of("stderr") };
}

const same = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((byte, at) => byte === b[at]);

const objectsOf = async (id: string) => (await bucket.list({ prefix: `hash/${id}/` })).objects;
const rowsOf = (sql: SqlStorage, id: string) =>
  sql
    .exec<{ count: number; bytes: number }>(
      "SELECT count(*) AS count, coalesce(sum(length(data)), 0) AS bytes FROM log WHERE run = ?",
      id,
    )
    .one();

describe("a log", () => {
  it("moves to the bucket in objects of about 2 MiB, and reads the same from wherever it lies", async () => {
    await withRuns("log-objects", async (runs, _host, sql) => {
      const { id, execution } = await start(runs);
      const out = pattern(11 * MiB, 1);
      const err = pattern(300_000, 2);
      for (let at = 0; at < out.length; at += 700_001) {
        execution.print("stdout", out.subarray(at, at + 700_001));
        if (at % 3 === 0) execution.print("stderr", err.subarray(at / 100, at / 100 + 10));
      }
      const printed = execution.run.record.output.stderr.bytes;
      const early = await whole(runs, id);
      expect(same(early.stdout, out)).toBe(true);
      execution.end({ state: "succeeded", exitCode: 0 });
      await expect.poll(async () => rowsOf(sql, id).bytes).toBe(0);
      const objects = await objectsOf(id);
      expect(objects.reduce((sum, { size }) => sum + size, 0)).toBe(out.length + printed);
      expect(objects.length).toBe(6);
      for (const { size } of objects) expect(size).toBeLessThan(3 * MiB);
      const late = await whole(runs, id, 48 * 1024 + 7);
      expect(same(late.stdout, out)).toBe(true);
      expect(same(late.stderr, early.stderr)).toBe(true);
    });
  });

  it("of a short run stays in its rows", async () => {
    await withRuns("log-short", async (runs, _host, sql) => {
      const { id, execution } = await start(runs);
      execution.print("stdout", "short");
      execution.end({ state: "succeeded" });
      await runs.result(id, 1000);
      expect(rowsOf(sql, id)).toEqual({ count: 1, bytes: 5 });
      expect(await objectsOf(id)).toEqual([]);
    });
  });

  it("is not changed by who printed reusing the buffer of what was saved", async () => {
    await withRuns("log-alias", async (runs) => {
      const { id, execution } = await start(runs);
      const buffer = new TextEncoder().encode("first");
      execution.print("stdout", buffer);
      execution.run.save();
      buffer.fill(0x78);
      execution.print("stdout", buffer);
      execution.end({ state: "succeeded" });
      const view = await runs.result(id, 1000);
      expect(view.stdout.head).toBe("firstxxxxx");
      expect(new TextDecoder().decode((await whole(runs, id)).stdout)).toBe("firstxxxxx");
    });
  });

  it("does not wait in memory for the next second when much comes", async () => {
    await withRuns("log-memory", async (runs, _host, sql) => {
      const { id, execution } = await start(runs);
      for (let n = 0; n < 9; n++) execution.print("stdout", pattern(MiB, n));
      expect(rowsOf(sql, id).bytes).toBeGreaterThanOrEqual(6 * MiB);
      execution.end({ state: "succeeded" });
      await runs.result(id, 1000);
    });
  });

  describe("of which a whole object comes", () => {
    const out = pattern(2.5 * MiB, 3);
    const [object, more] = [out.subarray(0, 2 * MiB), out.subarray(2 * MiB)];

    /** Prints a whole object; `then` is called while R2 has not taken it yet, and may say that it does not. */
    const print = (
      name: string,
      then: (
        execution: Conducted,
        sql: SqlStorage,
        id: string,
        settle: PromiseWithResolvers<void>,
      ) => unknown,
    ) => {
      const settle = Promise.withResolvers<void>();
      const put = async (key: string, value: ArrayBufferView) => {
        await settle.promise;
        return await bucket.put(key, value);
      };
      const slow = new Proxy(bucket, {
        get: (target, member) => (member === "put" ? put : Reflect.get(target, member).bind(target)),
      });
      return withRuns(
        name,
        async (runs, _host, sql) => {
          const { id, execution } = await start(runs);
          execution.print("stdout", object);
          await then(execution, sql, id, settle);
          settle.resolve();
          execution.end({ state: "succeeded" });
          await runs.result(id, 1000);
          expect(same((await whole(runs, id)).stdout, out)).toBe(true);
        },
        { objects: objectsIn(slow) },
      );
    };
    const onDisk = (sql: SqlStorage, id: string) =>
      sql.exec<{ bytes: number }>("SELECT out_bytes AS bytes FROM runs WHERE id = ?", id).one().bytes;

    it("goes to R2 without being rows first; what is on disk then is the run up to there", async () => {
      await print("log-direct", async (execution, sql, id, settle) => {
        expect(rowsOf(sql, id).count).toBe(0);
        execution.print("stdout", more);
        settle.resolve();
        await execution.run.ship();
        const { bytes } = sql
          .exec<{ bytes: number }>('SELECT sum("length") AS bytes FROM log WHERE run = ?', id)
          .one();
        expect(bytes).toBeGreaterThanOrEqual(object.length);
        expect(onDisk(sql, id)).toBe(bytes);
        expect(execution.run.stored("stdout")).toBe(bytes);
      });
    });

    it("is in rows as well when it is read while R2 takes it", async () => {
      await print("log-direct-read", (execution, sql, id) => {
        execution.print("stdout", more);
        execution.run.save();
        expect(rowsOf(sql, id).bytes).toBe(out.length);
        expect(onDisk(sql, id)).toBe(out.length);
      });
    });

    it("stays here when R2 refuses it", async () => {
      await print("log-direct-refused", async (execution, _sql, _id, settle) => {
        const shipped = execution.run.ship();
        settle.reject(new Error("no storage"));
        await shipped;
        expect(execution.run.waitingBytes).toBe(object.length);
        execution.print("stdout", more);
      });
    });
  });

  it("ends at its cap; what comes after is counted, and its end is shown", async () => {
    await withRuns(
      "log-cap",
      async (runs) => {
        const { id, execution } = await start(runs);
        const out = pattern(MiB, 5);
        execution.print("stdout", out);
        expect(execution.run.hasRoom("stderr")).toBe(true);
        execution.print("stderr", pattern(MiB, 6));
        expect(execution.run.hasRoom("stderr")).toBe(false);
        execution.run.skipped("stdout", 5000, new TextEncoder().encode("the end"));
        execution.end({ state: "succeeded" });
        const view = await runs.result(id, 1000);
        expect(view).toMatchObject({ logBytes: 1.5 * MiB, droppedBytes: 0.5 * MiB + 5000 });
        expect(view.stdout).toMatchObject({ bytes: MiB + 5000, tail: "the end" });
        const kept = await whole(runs, id);
        expect(same(kept.stdout, out)).toBe(true);
        expect(same(kept.stderr, pattern(MiB, 6).subarray(0, MiB / 2))).toBe(true);
      },
      { logCapBytes: 1.5 * MiB },
    );
  });

  it("keeps a quarter of its cap for each stream, whatever the other prints", async () => {
    await withRuns(
      "log-shares",
      async (runs, host, sql) => {
        const { id, execution } = await start(runs);
        const [out, err] = [pattern(3 * MiB, 8), pattern(MiB, 9)];
        for (let at = 0; at < 3; at++) {
          execution.print("stdout", out.subarray(at * MiB, (at + 1) * MiB));
          execution.print("stderr", err.subarray((at * MiB) / 4, ((at + 1) * MiB) / 4));
        }
        expect(execution.run.hasRoom("stderr")).toBe(false);
        execution.run.save();
        // The next actor counts what each has from the rows.
        const next = new LogWriter(sql, id, () => host.logCapBytes, false);
        expect([next.bytes, next.hasRoom("stdout"), next.hasRoom("stderr")]).toEqual([
          1.25 * MiB,
          false,
          false,
        ]);
        execution.end({ state: "succeeded" });
        const kept = await whole(runs, id);
        expect(same(kept.stdout, out.subarray(0, MiB))).toBe(true);
        expect(same(kept.stderr, err.subarray(0, MiB / 4))).toBe(true);
        expect(await runs.result(id, 0)).toMatchObject({ logBytes: 1.25 * MiB, droppedBytes: 2.5 * MiB });
      },
      { logCapBytes: MiB },
    );
  });

  it("loses nothing while the bucket refuses", async () => {
    let refuses = true;
    let refused = 0;
    const moody = new Proxy(bucket, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== "function") return value;
        return (...args: unknown[]) => {
          if (refuses && name === "put") {
            refused++;
            return Promise.reject(new Error("the bucket is not there"));
          }
          return Reflect.apply(value, target, args);
        };
      },
    });
    await withRuns(
      "log-refused",
      async (runs, _host, sql) => {
        const { id, execution } = await start(runs);
        const out = pattern(13 * MiB, 7);
        execution.print("stdout", out.subarray(0, 6 * MiB));
        execution.run.save();
        await expect.poll(() => refused).toBeGreaterThan(0);
        expect(same((await whole(runs, id)).stdout, out.subarray(0, 6 * MiB))).toBe(true);
        refuses = false;
        execution.print("stdout", out.subarray(6 * MiB));
        execution.end({ state: "succeeded" });
        await runs.result(id, 1000);
        await expect.poll(() => rowsOf(sql, id).bytes).toBe(0);
        expect(same((await whole(runs, id)).stdout, out)).toBe(true);
      },
      { objects: objectsIn(moody) },
    );
  });
});

describe("a run", () => {
  it("ends once, whoever ends it first", async () => {
    const ended: string[] = [];
    await withRuns(
      "run-once",
      async (runs) => {
        const { id, execution } = await start(runs);
        execution.print("stdout", "before");
        runs.containerGone("gone");
        runs.containerGone("gone again");
        execution.print("stdout", "after");
        execution.end({ state: "succeeded", exitCode: 0 });
        await expect.poll(() => runs.isBusy).toBe(false);
        const view = await runs.result(id, 1000);
        expect(view).toMatchObject({ state: "lost", note: "gone", stdout: { head: "before" } });
        expect(view.exitCode).toBeUndefined();
        expect(ended).toHaveLength(1);
      },
      { ended: ({ id }) => void ended.push(id) },
    );
  });

  it("that an unforeseen error ended is lost, and the error is for the log", async () => {
    const failures: unknown[] = [];
    await withRuns(
      "run-failed",
      async (runs) => {
        const { id, execution } = await start(runs);
        execution.fail(new RangeError("secret"));
        const view = await runs.result(id, 20_000);
        expect(view.state).toBe("lost");
        expect(view.note).toBe(
          `Internal error (ref ${id}). The server's log has the details under that reference.`,
        );
        await expect.poll(() => failures).toEqual([[id, expect.any(RangeError)]]);
      },
      { failed: (...failure) => void failures.push(failure) },
    );
  });

  it("is gone after its time, log and objects too; others stay", async () => {
    await withRuns(
      "run-expires",
      async (runs, host, sql) => {
        const old = await start(runs);
        old.execution.print("stdout", pattern(5 * MiB, 9));
        old.execution.end({ state: "succeeded" });
        const young = await start(runs);
        young.execution.print("stdout", "young");
        young.execution.end({ state: "succeeded" });
        const running = await start(runs);
        await expect.poll(async () => (await objectsOf(old.id)).length).toBe(3);
        await expect.poll(() => rowsOf(sql, old.id).bytes).toBe(0);
        sql.exec("UPDATE runs SET ended_at = ? WHERE id = ?", Date.now() - host.keepMs - 1000, old.id);
        const next = await runs.sweep();
        expect(next).toBeGreaterThan(Date.now() + host.keepMs - 60_000);
        expect(await objectsOf(old.id)).toEqual([]);
        expect(rowsOf(sql, old.id).count).toBe(0);
        await expect(runs.result(old.id, 0)).rejects.toThrow(`There is no run ${old.id}.`);
        expect((await runs.result(young.id, 0)).stdout.head).toBe("young");
        expect((await runs.result(running.id, 0)).state).toBe("running");
        running.execution.end({ state: "cancelled" });
        await runs.result(running.id, 1000);
      },
      { keepMs: DAY_MS },
    );
  });
});

it("loses a run of an earlier actor that its executor cannot resume, and no other", async () => {
  const failed: unknown[] = [];
  const changes: Partial<RunsHost> = { failed: (_id, error) => void failed.push(error) };
  const work = async (runs: Runs, host: RunsHost) => {
    const { id } = await start(runs);
    await runs.result(id, 0);
    const { execution } = await start(runs);
    execution.run.keepState({ of: "another version" });
    execution.run.save();
    const next = new Runs(host);
    next.resume(true);
    expect(next.list(10).map(({ state }) => state)).toEqual(["lost", "lost"]);
    expect((await next.result(execution.run.record.id, 0)).note).toMatch(/in another version/);
    expect((await next.result(id, 0)).note).toMatch(/never ran/);
    expect(failed).toHaveLength(1);
  };
  await withRuns("resume-unable", work, changes);
});

describe("the record of a run that ends while its caller waits", () => {
  const onDisk = (sql: SqlStorage) =>
    sql.exec<{ count: number }>("SELECT count(*) AS count FROM runs").one().count;

  /** Starts a run that prints so much and ends at once, and answers when its caller has its result. */
  async function ended(runs: Runs, namesID = false, printed = "some"): Promise<string> {
    const executor = executing((run) => {
      run.output("stdout", new TextEncoder().encode(printed));
      return { done: Promise.resolve({ state: "succeeded" }), cancel: async () => undefined };
    });
    return (await runs.start(executor, "title", ALLOWANCE, { waitUntil: Date.now() + 1000, namesID })).id;
  }

  it("is written behind the answer, when that does not tell its id", async () => {
    await withRuns("record-later", async (runs, _host, sql) => {
      await ended(runs);
      expect(onDisk(sql)).toBe(0);
      await expect.poll(() => onDisk(sql)).toBe(1);
    });
  });

  it.each(["result", "list", "log", "cancel"] as const)("is there for %s before that", async (method) => {
    await withRuns(`record-${method}`, async (runs, _host, sql) => {
      const id = await ended(runs);
      expect(onDisk(sql)).toBe(0);
      const found = {
        result: async () => (await runs.result(id, 0)).state,
        list: async () => runs.list(10)[0]?.state,
        log: async () => (await runs.log(id, 0, 100)).next && "succeeded",
        cancel: async () => (await runs.cancel(id, 0)).state,
      };
      expect(await found[method]()).toBe("succeeded");
    });
  });

  it("is on disk before its id is told: to a program, and where there is more output than is shown", async () => {
    await withRuns("record-first", async (runs, _host, sql) => {
      await ended(runs, true);
      expect(onDisk(sql)).toBe(1);
      await ended(runs, false, "long ".repeat(10_000));
      expect(onDisk(sql)).toBe(2);
    });
  });

  it("that SQLite does not take is reported, and keeps no other from it", async () => {
    const failures: string[] = [];
    await withRuns(
      "record-refused",
      async (runs, _host, sql) => {
        const refused = await ended(runs);
        sql.exec(`CREATE TRIGGER refuse BEFORE INSERT ON runs WHEN NEW.id = '${refused}'
          BEGIN SELECT RAISE(FAIL, 'refused'); END`);
        await ended(runs);
        await expect.poll(() => onDisk(sql)).toBe(1);
        sql.exec("DROP TRIGGER refuse");
        expect(failures).toEqual([refused]);
      },
      { failed: (id) => void failures.push(id) },
    );
  });
});
