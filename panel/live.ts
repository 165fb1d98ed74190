/**
 * Watches everything that the page shows, through one stream at a time. Components name a tool, and get its results as they
 * change.
 */
import { useEffect, useState } from "preact/hooks";
import type { WatchedTool } from "../src/shared/watch-intervals.ts";
import { host, type Source, type Update, type Watch } from "./host.ts";
import { pause, untilVisible } from "./poll.ts";
import { isSignedOut, showError } from "./tools.ts";

const RETRY_MS = 3000;

/** The pause before a new stream, because each new stream repeats all calls. */
const RECONNECT_MS = 250;

/** Several watchers that are added or removed within this time, in milliseconds, cause only one new stream. */
const TOGETHER_MS = 30;

interface Watcher {
  /** Each new stream reads this again, because watchers of a log advance the cursor in it. */
  watch: Watch;
  /** Handles a result before the next one arrives. Resolves with true if this was the last one. */
  onUpdate(update: Update): boolean | Promise<boolean>;
  onProblem(problem: string): void;
}

class Live {
  readonly #source: Source;
  readonly #watchers = new Set<Watcher>();
  #stop = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(source: Source) {
    this.#source = source;
  }

  add(watcher: Watcher): () => void {
    this.#watchers.add(watcher);
    this.renew();
    return () => {
      if (this.#watchers.delete(watcher)) this.renew();
    };
  }

  /** Starts a new stream, which repeats all calls. */
  renew(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#stop.abort();
      this.#stop = new AbortController();
      void this.#run(this.#stop.signal);
    }, TOGETHER_MS);
  }

  async #run(stopped: AbortSignal): Promise<void> {
    while (!stopped.aborted) {
      await untilVisible(stopped);
      const watchers = [...this.#watchers];
      if (stopped.aborted || watchers.length === 0) return;
      const paused = new AbortController();
      const hide = () => host().isOutOfSight() && paused.abort();
      document.addEventListener("visibilitychange", hide);
      const signal = AbortSignal.any([stopped, paused.signal]);
      let waitMs = RECONNECT_MS;
      try {
        const watch = watchers.map((watcher) => watcher.watch);
        await this.#source(watch, (index, update) => this.#report(watchers[index], update, signal), signal);
      } catch (error) {
        if (stopped.aborted) return;
        if (!paused.signal.aborted) {
          showError(error, (text) => {
            for (const watcher of watchers) if (this.#watchers.has(watcher)) watcher.onProblem(text);
          });
          if (isSignedOut.get()) return;
          waitMs = RETRY_MS;
        }
      } finally {
        document.removeEventListener("visibilitychange", hide);
      }
      await pause(waitMs, stopped);
    }
  }

  async #report(watcher: Watcher | undefined, update: Update, signal: AbortSignal): Promise<void> {
    if (signal.aborted || !watcher || !this.#watchers.has(watcher)) return;
    // No new stream is needed: the source reports nothing more for this watcher.
    if (await watcher.onUpdate(update)) this.#watchers.delete(watcher);
  }
}

export const live = new Live((watch, report, signal) => host().watch(watch, report, signal));

export interface WatchState<T> {
  value: T | undefined;
  problem: string | undefined;
  refresh(): void;
}

/** Watches a tool's structured result. @param args the call's arguments; undefined watches nothing */
export function useWatched<T>(name: WatchedTool, args: Record<string, unknown> | undefined): WatchState<T> {
  const [state, setState] = useState<{ key?: string; value?: T; problem?: string }>({});
  const key = args && JSON.stringify([name, args]);

  useEffect(() => {
    if (key === undefined || args === undefined) return undefined;
    const onProblem = (problem: string) =>
      setState((before) => ({ ...(before.key === key ? before : { key }), problem }));
    return live.add({
      watch: { name, arguments: args },
      onUpdate({ data, problem }) {
        if (problem === undefined) setState({ key, value: data as T });
        else onProblem(problem);
        return false;
      },
      onProblem,
    });
  }, [key]);

  const { value, problem } = state.key === key ? state : {};
  return { value, problem, refresh: () => live.renew() };
}
