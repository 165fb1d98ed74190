/** Waits for a condition, or for a time if the test is about time. */

/** A little less than the shortest timeout of a test, so that the error shows the condition. */
const DEADLINE_MS = 50_000;

/**
 * Calls `look` until it returns a value, and returns that value. @throws Error with the source of `look` if it
 * returns nothing in time
 */
export async function until<T>(
  look: () => T | Promise<T>,
  deadlineMs = DEADLINE_MS,
): Promise<NonNullable<Awaited<T>>> {
  const startedAt = performance.now();
  for (;;) {
    const found = await look();
    if (found) return found;
    if (performance.now() - startedAt > deadlineMs) throw new Error(`Not within ${deadlineMs} ms: ${look}`);
    await sleep(20);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
