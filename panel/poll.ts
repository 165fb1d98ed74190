/** Polling while the page is visible. */
import { useEffect, useState } from "preact/hooks";
import { host } from "./host.ts";
import { showError, ToolFailed } from "./tools.ts";

const RETRY_MS = 3000;

interface PollState<T> {
  value?: T;
  problem?: string;
}

/**
 * Loads a value while the page is visible.
 * @param key a new key loads the value again; undefined loads nothing
 * @param everyMs the pause after a result; without it, loading ends with the first result or tool error
 */
export function usePolled<T>(
  key: string | undefined,
  load: (signal: AbortSignal) => Promise<T>,
  everyMs?: number,
): PollState<T> {
  const [poll, setPoll] = useState<PollState<T>>({});
  useEffect(() => {
    if (key === undefined) return undefined;
    const stop = new AbortController();
    const { signal } = stop;
    void (async () => {
      while (!signal.aborted) {
        await untilVisible(signal);
        let waitMs = everyMs;
        try {
          const value = await load(signal);
          if (!signal.aborted) setPoll({ value });
        } catch (error) {
          if (signal.aborted) return;
          showError(error, (problem) => setPoll((before) => ({ ...before, problem })));
          if (everyMs !== undefined || !(error instanceof ToolFailed)) waitMs = RETRY_MS;
        }
        if (waitMs === undefined) return;
        await pause(waitMs, signal);
      }
    })();
    return () => stop.abort();
  }, [key]);
  return poll;
}

/** Resolves after `ms` milliseconds, when the network returns, or when the signal aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      removeEventListener("online", finish);
      signal.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, signal.aborted ? 0 : ms);
    addEventListener("online", finish);
    signal.addEventListener("abort", finish);
  });
}

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
