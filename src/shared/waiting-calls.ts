/** The calls that wait for their result. The local server answers them before it stops, because their clients would wait for long. */
const waiting = new Set<() => void>();

/**
 * @returns a promise that rejects with `makeError()` when the server stops, and the function that ends this. A promise of the whole
 * process would keep something of each call.
 */
export function serverStop(makeError: () => Error): { stopped: Promise<never>; ignore: () => void } {
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const stop = () => reject(makeError());
  waiting.add(stop);
  return { stopped, ignore: () => void waiting.delete(stop) };
}

/** @returns whether calls waited */
export function answerWaitingCalls(): boolean {
  const hasWaiting = waiting.size > 0;
  for (const stop of waiting) stop();
  return hasWaiting;
}
