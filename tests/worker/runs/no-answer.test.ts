/** What a request about files says of a sandbox that does not answer, with the time in the test's hands. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Connection } from "../../../src/container/connection.ts";
import { sleep } from "../support.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Makes a request whose first attempt breaks after so long, milliseconds, and every other one at once. */
async function failure(brokenAfterMs: number): Promise<unknown> {
  let attempts = 0;
  const connection = new Connection({
    running: () => true,
    isReady: () => true,
    ready: async () => undefined,
    used: () => undefined,
    fetch: async () => {
      if (attempts++ === 0) await sleep(brokenAfterMs);
      throw new Error("the connection broke");
    },
  });
  const request = connection.fetch("/stat", {}, new AbortController().signal, async () => "read");
  const failed = request.catch((error: unknown) => error);
  await vi.advanceTimersByTimeAsync(brokenAfterMs + 20_000);
  return failed;
}

it.each([
  [0, 10],
  [20_000, 30],
])("says for how long there was no answer: broken after %s ms, %s s", async (brokenAfterMs, seconds) => {
  const message = expect.stringContaining(`not answered for ${seconds} s`);
  expect(await failure(brokenAfterMs)).toMatchObject({ code: "no_answer", message });
});
