/** The longest that a call waits for a container, a restore or a save, in milliseconds: many clients give up after 60 seconds. */
export const CALL_MS = 40_000;

/** Waits for the promise. Returns its value, or undefined after `ms` milliseconds. */
export async function waitAtMost<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  const { promise: late, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => resolve(undefined), ms);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
