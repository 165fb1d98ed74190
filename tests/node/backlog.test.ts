/** How fast the actor stores output, measured with a fake clock. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Backlog } from "../../src/runs/backlog.ts";

const MiB = 1024 * 1024;

beforeEach(() => void vi.useFakeTimers({ toFake: ["performance", "setTimeout", "clearTimeout", "Date"] }));
afterEach(() => void vi.useRealTimers());

const newBacklog = (principal: string) =>
  new Backlog(
    () => [],
    () => principal,
  );

/** Starts a run that prints again as soon as the actor has accepted its last output. */
function startPrinting(backlog: Backlog): { bytes: number; isOver: boolean } {
  const run = { bytes: 0, isOver: false };
  void (async () => {
    while (!run.isOver && run.bytes < 2048 * MiB) await backlog.take(MiB / 4, () => (run.bytes += MiB / 4));
  })();
  return run;
}

it("the actor stores the output of all runs at full speed up to a common limit, and then slowly enough not to delay other runs", async () => {
  const backlog = newBacklog("alone");
  const runs = [startPrinting(backlog), startPrinting(backlog)];
  const printed = () => runs.reduce((sum, { bytes }) => sum + bytes, 0) / MiB;
  await vi.advanceTimersByTimeAsync(1);
  const atOnce = printed();
  expect(atOnce).toBeGreaterThan(100);
  expect(atOnce).toBeLessThan(256);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(printed() - atOnce).toBeGreaterThan(60);
  expect(printed() - atOnce).toBeLessThan(600);
  // A third run prints 10 bytes. They are stored before these two runs store another two megabytes.
  const before = printed();
  const { promise: taken, resolve } = Promise.withResolvers<void>();
  void backlog.take(10, resolve);
  await Promise.all([
    taken,
    vi.advanceTimersToNextTimerAsync().then(() => vi.advanceTimersToNextTimerAsync()),
  ]);
  expect(printed() - before).toBeLessThan(2);
  for (const run of runs) run.isOver = true;
});

it("all sandboxes of a principal print as much as one at first, and then twice as fast as one, and delay no other principal", async () => {
  const runs = Array.from({ length: 10 }, () => startPrinting(newBacklog("many")));
  const printed = () => runs.reduce((sum, { bytes }) => sum + bytes, 0) / MiB;
  await vi.advanceTimersByTimeAsync(1);
  expect(printed()).toBeLessThan(256);
  const before = printed();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(printed() - before).toBeGreaterThan(240);
  expect(printed() - before).toBeLessThan(600);
  const other = startPrinting(newBacklog("other"));
  await vi.advanceTimersByTimeAsync(1);
  expect(other.bytes / MiB).toBeGreaterThan(100);
  for (const run of [...runs, other]) run.isOver = true;
});

it("while sandboxes print without pause, short output of another sandbox of the principal and output of cancelled runs do not wait", async () => {
  const printing = newBacklog("busy");
  const runs = [printing, ...Array.from({ length: 6 }, () => newBacklog("busy"))].flatMap((one) =>
    Array.from({ length: 3 }, () => startPrinting(one)),
  );
  await vi.advanceTimersByTimeAsync(60_000);
  const other = newBacklog("busy");
  let taken = 0;
  for (const bytes of [10, MiB / 4, MiB / 4, MiB]) void other.take(bytes, () => taken++);
  void printing.take(MiB, () => taken++, true);
  await vi.advanceTimersByTimeAsync(1);
  expect(taken).toBe(5);
  for (const run of runs) run.isOver = true;
});

it("output waits for other sandboxes for no longer than a cancelled run may take to end, however long they have printed", async () => {
  const backlogs = Array.from({ length: 10 }, () => newBacklog("long"));
  const runs = [...backlogs, ...backlogs, ...backlogs, ...backlogs, ...backlogs].map(startPrinting);
  await vi.advanceTimersByTimeAsync(600_000);
  const printed = runs.map(({ bytes }) => bytes);
  await vi.advanceTimersByTimeAsync(5000);
  expect(runs.every(({ bytes }, at) => bytes > (printed[at] ?? 0))).toBe(true);
  for (const run of runs) run.isOver = true;
});
