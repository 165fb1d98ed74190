import { expect, test, vi } from "vitest";
import { admitName, noteCall, waitForStart } from "../../../src/actors/actor-starts.ts";
import { actorName } from "../../../src/shared/names.ts";
import { principal } from "../support.ts";

test("calls to many sandboxes wait before they start further actors, and calls to running actors do not", async () => {
  vi.useFakeTimers({ toFake: ["Date", "performance", "setTimeout"] });
  const names = await Promise.all(Array.from({ length: 1000 }, (_, n) => actorName(`cold-${n}`, "cold")));
  const started: string[] = [];
  const refused: unknown[] = [];
  const start = async (name: (typeof names)[number]) => {
    try {
      await waitForStart(name, "token");
      started.push(name);
    } catch (error) {
      refused.push(error);
    }
  };
  const all = names.map(start);
  await vi.advanceTimersByTimeAsync(0);
  expect(started).toHaveLength(20);
  await vi.advanceTimersByTimeAsync(5000);
  expect(started).toHaveLength(120);
  await vi.advanceTimersByTimeAsync(35_000);
  await Promise.all(all);
  expect([started.length, refused.length]).toEqual([820, 180]);
  expect(String(refused[0])).toContain("too many sandboxes within a few seconds");
  const [last = names[0]] = names.slice(819);
  if (!last) throw new Error("there are no names");
  await waitForStart(last, "token");
  // Somebody with a link to a sandbox of this principal does not wait for its calls.
  await waitForStart(await actorName("linked", "cold"), "link");
  // A call that has just ended has kept its actor running.
  await vi.advanceTimersByTimeAsync(60_000);
  noteCall(last);
  started.length = 0;
  const again = [last, ...names.slice(0, 20)].map(start);
  await vi.advanceTimersByTimeAsync(0);
  expect(started).toHaveLength(21);
  await Promise.all(again);
});

test("a principal that calls thousands of sandboxes waits before it calls more, but can use its own", async () => {
  const caller = await principal("inventive");
  await caller.call("write_file", { sandbox: "mine", path: "a.txt", content: "kept" });
  const names = await Promise.all(
    Array.from({ length: 3000 }, (_, number) => actorName(`invented-${number}`, caller.principalID)),
  );
  expect(() => names.forEach(admitName)).toThrow("too many sandboxes that you had not called before");
  expect((await caller.call("read_file", { sandbox: "mine", path: "a.txt" })).text).toContain("kept");
  const other = await principal("neighbour");
  expect((await other.call("list_runs", { sandbox: "one-more" })).isError).toBe(false);
});
