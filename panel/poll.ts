/** Polling while the page is visible. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { host } from "./host.ts";
import { showError } from "./tools.ts";

/** The pause after a failure, in milliseconds. */
const RETRY_MS = 3000;

export interface PollState<T> {
  /** The last result; undefined before the first. */
  value: T | undefined;
  problem: string | undefined;
  refresh(): void;
}

/**
 * Polls `everyMs` milliseconds after the last result, but not while the page is hidden.
 * @param key a new one starts again; undefined stops
 */
export function usePolled<T>(
  key: string | undefined,
  load: (signal: AbortSignal) => Promise<T>,
  everyMs: number,
): PollState<T> {
  const [poll, setPoll] = useState<{ key?: string; value?: T; problem?: string }>({});
  const [round, setRound] = useState(0);
  const asking = useRef(load);
  asking.current = load;

  useEffect(() => {
    if (key === undefined) return undefined;
    const stop = new AbortController();
    void (async () => {
      while (!stop.signal.aborted) {
        await untilVisible(stop.signal);
        let waitMs = everyMs;
        try {
          const value = await asking.current(stop.signal);
          if (!stop.signal.aborted) setPoll({ key, value });
        } catch (error) {
          if (stop.signal.aborted) return;
          waitMs = Math.max(waitMs, RETRY_MS);
          showError(error, (text) =>
            setPoll((before) => ({ ...(before.key === key ? before : { key }), problem: text })),
          );
        }
        await pause(waitMs, stop.signal);
      }
    })();
    return () => stop.abort();
  }, [key, everyMs, round]);

  const refresh = useCallback(() => setRound((before) => before + 1), []);
  const { value, problem } = poll.key === key ? poll : {};
  return { value, problem, refresh };
}

/** Resolves after `ms` milliseconds, when the network returns, or when the signal aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, signal.aborted ? 0 : ms);
    addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}

/** Resolves when the page is visible, or the signal aborts. */
export function untilVisible(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const onVisible = () => {
      if (host().isOutOfSight() && !signal.aborted) return;
      document.removeEventListener("visibilitychange", onVisible);
      done();
    };
    document.addEventListener("visibilitychange", onVisible);
    signal.addEventListener("abort", onVisible, { once: true });
    onVisible();
  });
}
