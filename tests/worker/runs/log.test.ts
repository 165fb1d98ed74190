import { runInDurableObject } from "cloudflare:test";
import { describe, expect, it, vi } from "vitest";
import type { Stream } from "../../../container/sandboxd/protocol.ts";
import { type LogPiece, durationMs } from "../../../src/runs/run-types.ts";
import { joinBytes } from "../../../src/shared/text.ts";
import { LogWriter, LogWrites, type RunObjects, readLog } from "../../../src/runs/run-log.ts";
import { Runs, type RunsHost } from "../../../src/runs/runs.ts";
import { DAY_MS } from "../../../src/shared/days.ts";
import { exhausted } from "../../../src/shared/errors.ts";
import { queriesOf } from "../queries.ts";
import { actorOf, bucket, sleep } from "../support.ts";
import {
  MiB,
  nothing,
  executorOf,
  ALLOWANCE,
  withRuns,
  start,
  isSame,
  pattern,
  objectsOf,
  rowsOf,
} from "./conducted-runs.ts";

describe("a run", () => {
  it("that an unexpected error ended is lost, and only the log has the error", async () => {
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
      { logError: (...failure) => void failures.push(failure) },
    );
  });

  it("is deleted at its expiry with its log and objects, and other runs stay", async () => {
    await withRuns("run-expires", async (runs, _host, sql) => {
      vi.useFakeTimers({ toFake: ["Date"], now: Date.now() - DAY_MS - 1000 });
      const old = await start(runs);
      old.execution.print("stdout", pattern(5 * MiB, 9));
      old.execution.end({ state: "succeeded" });
      await runs.result(old.id, 20_000);
      vi.useRealTimers();
      const young = await start(runs);
      young.execution.print("stdout", "young");
      young.execution.end({ state: "succeeded" });
      const running = await start(runs);
      await expect.poll(async () => (await objectsOf(old.id)).length).toBe(3);
      await expect.poll(() => rowsOf(sql, old.id).bytes).toBe(0);
      const { oldest } = await runs.evict(Infinity, Date.now() - DAY_MS);
      expect(oldest).toBeGreaterThan(Date.now() - 60_000);
      expect(await objectsOf(old.id)).toEqual([]);
      expect(rowsOf(sql, old.id).count).toBe(0);
      await expect(runs.result(old.id, 0)).rejects.toThrow(`There is no run ${old.id}.`);
      expect((await runs.result(young.id, 0)).stdout.head).toBe("young");
      expect((await runs.result(running.id, 0)).state).toBe("running");
      running.execution.end({ state: "cancelled" });
      await runs.result(running.id, 1000);
    });
  });
});

it("a run of an earlier actor is lost if its executor cannot resume it, and so are runs that never started", async () => {
  const failed: unknown[] = [];
  const changes: Partial<RunsHost> = { logError: (_id, error) => void failed.push(error) };
  const work = async (runs: Runs, host: RunsHost) => {
    const { id } = await start(runs);
    await runs.result(id, 0);
    const { execution } = await start(runs);
    execution.run.keepState({ of: "another version" });
    execution.run.save();
    // The time until the restart is no duration of a run that never started.
    await sleep(20);
    const next = new Runs(host);
    next.resume({ code: nothing, command: nothing, task: nothing }, true);
    const listed = await next.list(10);
    expect(listed.map(({ state }) => state)).toEqual(["lost", "lost"]);
    expect(listed.map((lost) => durationMs(lost) > 0)).toEqual([true, false]);
    expect((await next.result(execution.run.record.id, 0)).note).toMatch(/with another version/);
    expect((await next.result(id, 0)).note).toMatch(/never started/);
    expect(failed).toHaveLength(1);
  };
  await withRuns("resume-unable", work, changes);
});

it("a state that changes with each piece of output is stored at once only the first time", async () => {
  await withRuns("state-often", async (runs) => {
    const { execution } = await start(runs);
    const { run } = execution;
    run.save();
    const stored = vi.fn<() => void>();
    for (let offset = 0; offset < 100; offset++) run.keepState({ offset }, stored);
    expect(stored).toHaveBeenCalledTimes(1);
    run.save();
    expect(stored).toHaveBeenCalledTimes(2);
    execution.end({ state: "cancelled" });
    await runs.result(run.record.id, 1000);
  });
});

it("a call that typed text does not compare each byte of output with the text", async () => {
  await withRuns("typing", async (runs) => {
    const { execution } = await start(runs);
    const { run } = execution;
    const compared = vi.spyOn(run.record.output.stdout, "last");
    const settled = run.waitUntilQuiet(10_000, 0, `${"y".repeat(200)}\r`);
    for (let count = 0; count < 100; count++) {
      execution.print("stdout", "y");
      await new Promise((resolve) => setTimeout(resolve));
    }
    execution.end({ state: "cancelled" });
    await settled;
    expect(compared.mock.calls.length).toBeLessThan(20);
  });
});

describe("the record of a run that ends while its caller waits", () => {
  const onDisk = (sql: SqlStorage) =>
    sql.exec<{ count: number }>("SELECT count(*) AS count FROM runs").one().count;

  /** Starts a run that prints this text and ends at once. Resolves with its id when its caller has the result. */
  async function runToEnd(runs: Runs, namesID = false, printed = "some"): Promise<string> {
    const executor = executorOf((run) => {
      run.output("stdout", new TextEncoder().encode(printed));
      return { done: Promise.resolve({ state: "succeeded" }), cancel: async () => undefined };
    });
    return (await runs.start(executor, "title", ALLOWANCE, { waitUntil: Date.now() + 1000, namesID })).id;
  }

  it("is on disk before its caller gets the run's id, as data or in a result with cut output", async () => {
    await withRuns("record-first", async (runs, _host, sql) => {
      await runToEnd(runs, true);
      expect(onDisk(sql)).toBe(1);
      await runToEnd(runs, false, "long ".repeat(10_000));
      expect(onDisk(sql)).toBe(2);
    });
  });

  it("is reported if SQLite refuses it, and does not block another record", async () => {
    const failures: string[] = [];
    await withRuns(
      "record-refused",
      async (runs, _host, sql) => {
        const refused = await runToEnd(runs);
        sql.exec(`CREATE TRIGGER refuse BEFORE INSERT ON runs WHEN NEW.id = '${refused}'
          BEGIN SELECT RAISE(FAIL, 'refused'); END`);
        await runToEnd(runs);
        await expect.poll(() => onDisk(sql)).toBe(1);
        sql.exec("DROP TRIGGER refuse");
        expect(failures).toEqual([refused]);
      },
      { logError: (id) => void failures.push(id) },
    );
  });
});

it("a call that waits for a run leaves nothing in memory when it returns", () =>
  withRuns("waits", async (runs) => {
    const { id, execution } = await start(runs);
    const { run } = execution;
    // A reaction to this promise stays until the run ends.
    const reactions = vi.spyOn(run.settled, "then");
    for (let count = 0; count < 100; count++) await runs.result(id, count % 2);
    await run.watch(5, () => undefined);
    expect(reactions).not.toHaveBeenCalled();
    expect(run.isWatched).toBe(false);
    execution.end({ state: "succeeded" });
    expect(await runs.result(id, 1000)).toMatchObject({ state: "succeeded" });
  }));

describe("a log in R2", () => {
  /** All pieces of a stream, read page by page. */
  async function readAll(runs: Runs, id: string, stream: Stream): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for (let cursor = 0; ;) {
      const { pieces, next } = await runs.log(id, cursor, 100_000);
      if (next === cursor) return joinBytes(parts);
      parts.push(...pieces.filter((piece) => piece.stream === stream).map(({ bytes }) => bytes));
      cursor = next;
    }
  }

  it("has each byte once, also after a flush during an upload or a refusal of R2", async () => {
    let arrive = Promise.withResolvers<void>();
    const slow = {
      ...bucket,
      put: async (key: string, content: Uint8Array) => {
        await arrive.promise;
        await bucket.put(key, content);
      },
    };
    const objects = { bucket: slow, prefix: (id: string) => `hash/${id}/` };
    const work = async (runs: Runs, _host: RunsHost, sql: SqlStorage) => {
      const { id, execution } = await start(runs);
      const printed = pattern(7 * MiB, 5);
      const print = (from: number, to: number) => {
        for (let at = from; at < to; at += 64 * 1024)
          execution.print(
            at % (256 * 1024) === 0 ? "stderr" : "stdout",
            printed.subarray(at, at + 64 * 1024),
          );
      };
      print(0, 3 * MiB);
      // A reader flushes the output that is being uploaded.
      await runs.log(id, 0, 100);
      print(3 * MiB, 5 * MiB);
      arrive.reject(new Error("refused"));
      await execution.run.moveLog();
      arrive = Promise.withResolvers();
      print(5 * MiB, 7 * MiB);
      execution.end({ state: "succeeded" });
      arrive.resolve();
      await runs.result(id, 20_000);
      await expect.poll(() => rowsOf(sql, id).bytes).toBe(0);
      const piecesOfStream = (isError: boolean) => {
        const parts: Uint8Array[] = [];
        for (let at = 0; at < printed.length; at += 64 * 1024)
          if ((at % (256 * 1024) === 0) === isError) parts.push(printed.subarray(at, at + 64 * 1024));
        return joinBytes(parts);
      };
      expect(isSame(await readAll(runs, id, "stdout"), piecesOfStream(false))).toBe(true);
      expect(isSame(await readAll(runs, id, "stderr"), piecesOfStream(true))).toBe(true);
    };
    await withRuns("log-once", work, { objects });
  });
});

it("a page of a log reads few rows, however many are before and after it", async () => {
  await runInDurableObject(await actorOf("log-rows"), async (_sandbox, { storage: { sql } }) => {
    const store = { bucket, prefix: () => "log-rows/" };
    const rows = 50_000;
    const length = 40;
    sql.exec(
      `WITH RECURSIVE n(seq) AS (SELECT 0 UNION ALL SELECT seq + 1 FROM n WHERE seq < ${rows - 1})
       INSERT INTO log (run, seq, stream, start, length, data)
       SELECT 'many', 2 * seq, seq % 2, seq * ${length}, ${length}, zeroblob(${length}) FROM n`,
    );
    const read = async (id: string, cursor: number) => {
      const page = () => readLog(sql, id, store, cursor, 100 * length);
      const { value: pieces, rowsRead } = await queriesOf(sql, page);
      expect(rowsRead).toBeLessThan(300);
      return pieces.map(({ bytes }) => bytes.length);
    };
    for (const row of [0, rows / 2, rows - 101]) {
      // The page begins and ends within a row.
      const sizes = await read("many", row * length + 7);
      expect([sizes.length, sizes[0], sizes.at(-1)]).toEqual([101, length - 7, 7]);
      expect((await read("many", row * length)).length).toBe(100);
    }
    expect(await read("many", (rows - 1) * length)).toEqual([length]);
    expect(await read("many", rows * length)).toEqual([]);
    expect(await read("none", 0)).toEqual([]);
  });
});

/** A run whose actor has stored this many bytes of each stream. */
function loggedRun(id: string, bytes = { stdout: 0, stderr: 0 }) {
  const output = { stdout: { bytes: bytes.stdout }, stderr: { bytes: bytes.stderr } };
  return { id, logBytes: bytes.stdout + bytes.stderr, output };
}

async function allPieces(sql: SqlStorage, id: string, store: RunObjects): Promise<LogPiece[]> {
  const found: LogPiece[] = [];
  for (let cursor = 0; ;) {
    const pieces = await readLog(sql, id, store, cursor, MiB);
    if (pieces.length === 0) return found;
    found.push(...pieces);
    cursor += pieces.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }
}

it("a log continues after a restart, which reads few of its rows", async () => {
  await runInDurableObject(await actorOf("log-restart"), async (_sandbox, { storage: { sql } }) => {
    const store = { bucket, prefix: () => "log-restart/" };
    const begin = (run = loggedRun("restarted")) =>
      new LogWriter(sql, store, new LogWrites(), run, () => 16 * MiB);
    const content = pattern(6 * MiB, 4);
    let printed = 0;
    const print = (log: LogWriter, bytes: number) =>
      log.append("stdout", content.subarray(printed, (printed += bytes)));
    const first = begin();
    print(first, 3 * MiB);
    await first.moveToStore(() => () => undefined);
    print(first, 100_000);
    first.flush();
    const stored = first.bytes;
    sql.exec(
      `WITH RECURSIVE n(seq) AS (SELECT 0 UNION ALL SELECT seq + 1 FROM n WHERE seq < 999)
       INSERT INTO log (run, seq, stream, start, length, data)
       SELECT 'other', seq, 0, seq, 1, x'00' FROM n`,
    );
    const resume = () => begin(loggedRun("restarted", { stdout: stored, stderr: 0 }));
    const { value: second, rowsRead } = await queriesOf(sql, resume);
    expect(rowsRead).toBeLessThanOrEqual(1);
    expect(
      (await queriesOf(sql, () => begin(loggedRun("other", { stdout: 1000, stderr: 0 })))).rowsRead,
    ).toBe(1);
    for (const bytes of [50_000, 2.5 * MiB]) {
      print(second, bytes);
      second.flush();
      await second.moveToStore(() => () => undefined);
    }
    await second.moveToStore(() => () => undefined);
    expect(second.waitingBytes).toBe(0);
    const pieces = await allPieces(sql, "restarted", store);
    expect(isSame(joinBytes(pieces.map(({ bytes }) => bytes)), content.slice(0, printed))).toBe(true);
  });
});

it("a flush has few rows, however often the program switches between its streams", async () => {
  await runInDurableObject(await actorOf("log-bursts"), async (_sandbox, { storage: { sql } }) => {
    const store = { bucket, prefix: () => "log-bursts/" };
    const log = new LogWriter(sql, store, new LogWrites(), loggedRun("bursts"), () => 16 * MiB);
    log.append("stdout", pattern(MiB, 1));
    log.flush();
    const bursts = 8;
    for (let at = 0; at < bursts * 5000; at++) {
      log.append(at % 2 === 0 ? "stdout" : "stderr", new Uint8Array([at % 256]));
      if (at % 5000 === 4999) log.flush();
    }
    expect(rowsOf(sql, "bursts").count).toBeLessThanOrEqual(2 + bursts * 256);
    const read = await allPieces(sql, "bursts", store);
    expect(read.reduce((sum, { bytes }) => sum + bytes.length, 0)).toBe(log.bytes);
    const errors = read.filter(({ stream }) => stream === "stderr").map(({ bytes }) => bytes);
    const written = Uint8Array.from({ length: bursts * 2500 }, (_, at) => (2 * at + 1) % 256);
    expect(await new Blob(errors).bytes()).toEqual(written);
  });
});

it("many runs are deleted without measuring all that is stored for each of them", async () => {
  await withRuns("parts", async (runs, _host, sql) => {
    const empty = ["out_head", "out_tail", "err_head", "err_tail"].map((name) => `x'' AS ${name}`).join(", ");
    const count = 500;
    sql.exec(
      `WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n WHERE number < ${count})
       INSERT INTO runs (id, kind, state, title, started_at, ended_at, out_bytes, err_bytes, log_bytes, dropped_bytes, out_head, out_tail, err_head, err_tail)
       SELECT printf('parts.0000%05d', number), 'command', 'succeeded', '', 0, number, 0, 0, 0, 0, ${empty} FROM n`,
    );
    sql.exec("INSERT INTO stored_bytes SELECT id, 1000 FROM runs");
    const { bytes: before } = runs.measureStored();
    const exec = vi.spyOn(sql, "exec");
    const evicted = 1000 * (count - 100);
    const left = await runs.evict(evicted, 1e9);
    const statements = exec.mock.calls.length;
    exec.mockRestore();
    const freed = before - left.bytes;
    expect(freed).toBeGreaterThanOrEqual(evicted);
    expect(freed).toBeLessThan(evicted + 10_000);
    expect(statements).toBeLessThan(6.5 * count);
  });
});

it("a list of runs writes only runs that are not stored yet, and shows the current state of the others", async () => {
  await withRuns("listed-runs", async (runs, _host, sql) => {
    const first = await start(runs);
    first.execution.run.save();
    const exec = vi.spyOn(sql, "exec");
    const startedAt = Date.now() + 5000;
    first.execution.run.record.startedAt = startedAt;
    first.execution.print("stdout", "x".repeat(16_384));
    expect(runs.list(10)).toMatchObject([{ id: first.id, state: "running", startedAt }]);
    const written = exec.mock.calls.filter(([query]) => query.startsWith("INSERT"));
    exec.mockRestore();
    expect(written).toEqual([]);
    first.execution.end({ state: "succeeded", exitCode: 0 });
    await runs.result(first.id, 1000);
    expect(runs.list(10)).toMatchObject([{ id: first.id, state: "succeeded", exitCode: 0 }]);
  });
});

it.each(["is removed", "could not start"])(
  "a run that %s leaves nothing of its log on the way to R2",
  async (how) => {
    const arrive = Promise.withResolvers<void>();
    const put = async (key: string, content: Uint8Array) => {
      await arrive.promise;
      await bucket.put(key, content);
    };
    const objects = { bucket: { ...bucket, put }, prefix: (id: string) => `hash/${id}/` };
    const work = async (runs: Runs, _host: RunsHost, sql: SqlStorage) => {
      const { id, execution, ended } = await start(runs, 20_000);
      execution.print("stdout", pattern(3 * MiB, 3));
      if (how === "is removed") execution.end({ state: "succeeded" });
      // A program in sandboxd's place sends output, then an event that says that the run could not start.
      else execution.fail(exhausted());
      const removed = how === "is removed" ? ended.then(() => runs.remove(id)) : ended.catch(() => undefined);
      await runs.result(id, 20_000);
      arrive.resolve();
      await removed;
      await expect.poll(() => runs.hasActive).toBe(false);
      expect(rowsOf(sql, id).count).toBe(0);
      expect(await objectsOf(id)).toEqual([]);
      await expect(runs.result(id, 0)).rejects.toThrow(`There is no run ${id}.`);
      expect(runs.measureStored()).toEqual({ bytes: 0 });
    };
    await withRuns(`left-${how.length}`, work, { objects });
  },
);

it("a run whose actor ended before it recorded an object in R2 leaves nothing behind when it is removed", async () => {
  const put = async (key: string, content: Uint8Array) => {
    await bucket.put(key, content);
    await new Promise(() => undefined);
  };
  const objects = { bucket: { ...bucket, put }, prefix: (id: string) => `hash/${id}/` };
  const work = async (runs: Runs, host: RunsHost) => {
    const { id, execution } = await start(runs);
    execution.print("stdout", pattern(MiB, 4));
    execution.end({ state: "succeeded" });
    await runs.result(id, 20_000);
    await expect.poll(() => objectsOf(id)).toHaveLength(1);
    const next = new Runs(host);
    next.resume({ code: nothing, command: nothing, task: nothing }, true);
    await next.remove(id);
    expect(await objectsOf(id)).toEqual([]);
  };
  await withRuns("unrecorded-object", work, { objects });
});

it("the state stored with an object in R2 is that of its output, so the next actor reads the later output again", async () => {
  const [sent, arrive] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const put = async (key: string, content: Uint8Array) => {
    sent.resolve();
    await arrive.promise;
    await bucket.put(key, content);
  };
  const objects = { bucket: { ...bucket, put }, prefix: (id: string) => `hash/${id}/` };
  const work = async (runs: Runs, _host: RunsHost, sql: SqlStorage) => {
    const { id, execution } = await start(runs);
    const { run } = execution;
    run.save();
    const stored = vi.fn<(offset: number) => void>();
    const print = (offset: number, content: Uint8Array) => {
      run.keepState({ offset }, () => stored(offset));
      execution.print("stdout", content);
    };
    print(1, pattern(MiB, 4));
    print(2, pattern(MiB, 5));
    const moved = run.moveLog();
    await sent.promise;
    stored.mockClear();
    print(3, pattern(MiB, 6));
    arrive.resolve();
    await moved;
    const row = sql.exec("SELECT log_bytes AS bytes, resume_state AS state FROM runs WHERE id = ?", id).one();
    expect(row).toEqual({ bytes: 2 * MiB, state: '{"offset":2}' });
    expect(stored.mock.calls).toEqual([[2]]);
    execution.end({ state: "succeeded" });
    await runs.result(id, 20_000);
  };
  await withRuns("state-of-object", work, { objects });
});
