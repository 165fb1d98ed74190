/** A test that has fake timers leaves the timers of actors alone. */
import { runInDurableObject } from "cloudflare:test";
import { expect, it, vi } from "vitest";
import { accountOf, principal } from "./support.ts";

it("actors have real timers while a test has fake ones", async () => {
  const account = accountOf(await principal("timers"));
  vi.useFakeTimers();
  const fired = vi.fn<() => void>();
  setTimeout(fired, 10);
  const order = await runInDurableObject(
    account,
    () => new Promise((resolve) => setTimeout(resolve, 20, "actor")),
  );
  expect(order).toBe("actor");
  expect(fired).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(10);
  expect(fired).toHaveBeenCalledOnce();
  const cleared = setTimeout(fired, 10);
  clearTimeout(cleared);
  await vi.advanceTimersByTimeAsync(10);
  expect(fired).toHaveBeenCalledOnce();
});
