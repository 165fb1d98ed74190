/** Waiting in tests: for an event wherever there is one, for a time where the time is what the test is about. */

/** A little under the shortest time that a test is given, so that the error says what was waited for. */
const DEADLINE_MS = 50_000;

/**
 * Looks until there is something, and returns it.
 * @throws Error with the source of `look` when there is nothing after so many milliseconds
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
