/** Waits for a condition, or for a time if the test is about time. */

/** A little less than the shortest timeout of a test, so that the error shows the condition. */
const DEADLINE_MS = 110_000;

const MIN_PAUSE_MS = 20;
const MAX_PAUSE_MS = 200;

/**
 * Calls `check` until it returns a value, and returns that value. @throws Error with the source of `check` if it
 * returns nothing in time
 */
export async function until<T>(
  check: () => T | Promise<T>,
  deadlineMs = DEADLINE_MS,
): Promise<NonNullable<Awaited<T>>> {
  const startedAt = performance.now();
  for (;;) {
    const found = await check();
    if (found) return found;
    const elapsed = performance.now() - startedAt;
    if (elapsed > deadlineMs) throw new Error(`Not within ${deadlineMs} ms: ${check}`);
    // Each check takes processor time, which parallel tests need.
    await sleep(Math.min(Math.max(elapsed / 10, MIN_PAUSE_MS), MAX_PAUSE_MS));
  }
}

/** Reads until the text has these words. Returns the text. @throws Error with the last text */
export async function untilText(
  read: () => string | Promise<string>,
  words: string | RegExp,
): Promise<string> {
  let text = "";
  const hasWords = async () => {
    text = await read();
    return typeof words === "string" ? text.includes(words) : words.test(text);
  };
  await until(hasWords).catch((cause) => {
    throw new Error(`${words} is not in: ${text.slice(-2000)}`, { cause });
  });
  return text;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
