/** When idle shells end, with time and the ends themselves in the test's hand. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Shells } from "../../src/container/shells.ts";

let ended: string[];
let remembered: string[];

beforeEach(() => {
  vi.useFakeTimers();
  ended = [];
  remembered = [];
});
afterEach(() => vi.useRealTimers());

const host = {
  end: async (name: string) => ended.push(name),
  remember: (names: string[]) => (remembered = names),
};
const names = (count: number) => Array.from({ length: count }, (_, n) => `shell-${n}`);

it("ends a shell that was idle for five minutes although nobody calls", async () => {
  const shells = new Shells(host);
  await shells.use("main", async () => undefined);
  expect(remembered).toEqual(["main"]);
  await vi.advanceTimersByTimeAsync(299_000);
  expect(ended).toEqual([]);
  await vi.advanceTimersByTimeAsync(1000);
  expect(ended).toEqual(["main"]);
  expect(remembered).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

it("ends what an earlier actor has left, and not the shell of a call under way", async () => {
  const shells = new Shells(host, names(30));
  const call = Promise.withResolvers<void>();
  const used = shells.use("shell-0", () => call.promise);
  await vi.advanceTimersByTimeAsync(5000);
  expect(ended).toEqual(names(19).slice(1));
  await vi.advanceTimersByTimeAsync(600_000);
  expect(ended).toEqual(names(30).slice(1));
  expect(remembered).toEqual(["shell-0"]);
  call.resolve();
  await used;
  shells.forget();
  expect(remembered).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});
