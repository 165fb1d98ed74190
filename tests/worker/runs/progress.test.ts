/** How often the output of a run is read for the calls that wait for the run, measured with a fake clock. */
import { beforeEach, expect, it, vi } from "vitest";
import { ActiveRun } from "../../../src/runs/active-run.ts";
import { HeadAndTail } from "../../../src/runs/head-and-tail.ts";
import { newRunID } from "../../../src/runs/id.ts";
import type { LogWriter } from "../../../src/runs/run-log.ts";

beforeEach(() => void vi.useFakeTimers());

const bytes = (text: string) => new TextEncoder().encode(text);

/** Counts how often the last line of a run's stdout is read. Each output reads the end of the stream once more. */
function countReads(run: ActiveRun): () => number {
  const { stdout } = run.record.output;
  let [{ tail }, reads, outputs] = [stdout, 0, 0];
  Object.defineProperty(stdout, "tail", {
    get: () => (reads++, tail),
    set: (value) => {
      tail = value;
      outputs++;
    },
  });
  return () => reads - outputs;
}

function startRun(principal?: string): ActiveRun {
  const log = { append: (_stream: string, { length }: Uint8Array) => length } as unknown as LogWriter;
  const output = { stdout: new HeadAndTail(), stderr: new HeadAndTail() };
  const times = { startedAt: Date.now(), logBytes: 0, droppedBytes: 0 };
  const record = {
    id: newRunID("a", false),
    kind: "command",
    state: "running",
    title: "",
    ...times,
  } as const;
  return new ActiveRun({ ...record, output }, log, { principalID: () => principal } as never);
}

it("the last line is read four times a second for all calls, and each call gets each line once", async () => {
  const run = startRun();
  run.output("stdout", bytes("begun\n"));
  const readsOfLines = countReads(run);
  const lines = Array.from({ length: 100 }, () => [] as string[]);
  const waiting = lines.map((shown) => run.watch(60_000, (line) => shown.push(line)));
  for (let at = 0; at < 200; at++) {
    run.output("stdout", bytes(at === 150 ? "next\n" : "\n"));
    await vi.advanceTimersByTimeAsync(10);
  }
  expect(readsOfLines()).toBeLessThan(lines.length + 10);
  for (const shown of lines) expect(shown).toEqual(["begun", "next"]);
  await vi.advanceTimersByTimeAsync(60_000);
  await Promise.all(waiting);
  expect(run.isWatched).toBe(false);
});

it("calls that wait for output are woken at once, and then at most a hundred times a second", async () => {
  const run = startRun();
  let woken = 0;
  const follow = async () => {
    for (; run.record.output.stdout.bytes < 1000; woken++) await run.waitForChange(60_000);
  };
  const following = follow();
  run.output("stdout", bytes("x"));
  await vi.advanceTimersByTimeAsync(0);
  expect(woken).toBe(1);
  for (let at = 1; at < 1000; at++) {
    await vi.advanceTimersByTimeAsync(1);
    run.output("stdout", bytes("x"));
  }
  await vi.advanceTimersByTimeAsync(100);
  await following;
  expect(woken).toBeGreaterThan(50);
  expect(woken).toBeLessThanOrEqual(101);
});
