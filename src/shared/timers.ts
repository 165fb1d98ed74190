import { MAX_BEHIND_MS } from "../../container/sandboxd/pace.ts";

/** The longest that a call waits for a container, a restore or a save: many clients give up after 60 seconds. */
export const CALL_MS = 40_000;

/**
 * How long ago a time was, in milliseconds; 0 for a time that only another request's clock has reached (pace.ts). Infinity for a later
 * time: then the clock was set back, perhaps by days, and nothing may wait that long.
 */
export function elapsedMs(since: number): number {
  const ms = Date.now() - since;
  return ms <= -MAX_BEHIND_MS ? Infinity : Math.max(0, ms);
}

/** Returns a function that tells how many of `ms` milliseconds are left. If the clock was set back, none are left. */
export function countdown(ms: number): () => number {
  const begunAt = Date.now();
  return () => ms - elapsedMs(begunAt);
}

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

/** Waits for the promise. @throws what `late` returns, after `ms` milliseconds */
export async function valueWithin<T>(ms: number, promise: Promise<T>, late: () => Error): Promise<T> {
  const timely = promise.then((value) => ({ value }));
  const result = await waitAtMost(ms, timely);
  if (!result) throw late();
  return result.value;
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Like `pause`, but ends when the signal aborts. Leaves nothing at the signal, which may outlive thousands of pauses. */
export function pauseUnlessAborted(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, signal.aborted ? 0 : ms);
    signal.addEventListener("abort", done);
  });
}

/** Returns a function that does `work` at once, but not before `pauseMs` after the last time: then it does `work` once, later. */
export function throttled(pauseMs: number, work: () => void): () => void {
  let doneAt = 0;
  let timer: ReturnType<typeof setTimeout> | null = null;
  const doNow = () => {
    timer = null;
    doneAt = Date.now();
    work();
  };
  return () => {
    const leftMs = pauseMs - elapsedMs(doneAt);
    if (leftMs <= 0 && timer === null) doNow();
    else timer ??= setTimeout(doNow, leftMs);
  };
}

/**
 * Does work with a signal that aborts with `outer`, or after `ms` milliseconds. Not `AbortSignal.any`, which workerd keeps as long
 * as `outer`.
 */
export async function withLimitedSignal<T>(
  outer: AbortSignal,
  ms: number,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limited = new AbortController();
  const stop = () => limited.abort(outer.reason);
  const timer = setTimeout(
    () => limited.abort(new DOMException("The time limit is over", "TimeoutError")),
    ms,
  );
  outer.addEventListener("abort", stop);
  if (outer.aborted) stop();
  try {
    return await work(limited.signal);
  } finally {
    clearTimeout(timer);
    outer.removeEventListener("abort", stop);
  }
}

/** @throws the signal's reason if it is aborted first */
export function unlessAborted<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  const { promise: rejection, reject } = Promise.withResolvers<never>();
  const stop = () => reject(signal.reason);
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop, { once: true });
  return Promise.race([promise, rejection]);
}
