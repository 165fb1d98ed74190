/** Polling while the page is visible: the page learns of changes only by its own calls. */
import { useEffect, useState } from "preact/hooks";
import { host } from "./host.ts";
import { callTool, isSignedOut, showError, ToolFailed, Unreachable } from "./tools.ts";
import { UNREACHABLE } from "./texts.ts";

const RETRY_MS = 3000;

/** The longest step, in milliseconds: a call waits for output for at most 45 s. Connections can break without a sign. */
const LONGEST_STEP_MS = 75_000;

/** Milliseconds between polls of lists. */
export const POLL_MS = { list_sandboxes: 4000, list_runs: 2500 };

const HIDDEN = new Error("The page is hidden.");

/** How often `refresh` was called. */
let refreshes = 0;

/** Lets each poll take its next step now, because this page has changed something. */
export function refresh(): void {
  refreshes++;
  dispatchEvent(new Event("refresh"));
}

/**
 * Repeats a step, such as a call, while the page is visible. Repeats it also after errors, until the person is signed out.
 * @param step returns how many milliseconds to pause, or undefined to end
 * @returns a function that ends the repetition
 */
export function poll(
  step: (signal: AbortSignal) => Promise<number | undefined>,
  onProblem: (problem: string) => void,
): () => void {
  const stop = new AbortController();
  void repeat(step, onProblem, stop.signal);
  return () => stop.abort();
}

async function repeat(
  step: (signal: AbortSignal) => Promise<number | undefined>,
  onProblem: (problem: string) => void,
  stopped: AbortSignal,
): Promise<void> {
  while (!stopped.aborted) {
    await untilVisible(stopped);
    const before = refreshes;
    let waitMs: number | undefined = RETRY_MS;
    try {
      waitMs = await whileConnected(step, stopped);
    } catch (error) {
      if (stopped.aborted) return;
      if (error === HIDDEN) continue;
      showError(error, onProblem);
      if (isSignedOut.get()) return;
    }
    if (waitMs === undefined) return;
    if (before === refreshes) await pause(waitMs, stopped);
  }
}

/** Does a step. Aborts it when the page is hidden or the connection is lost. */
async function whileConnected<T>(
  step: (signal: AbortSignal) => Promise<T>,
  stopped: AbortSignal,
): Promise<T> {
  const broken = new AbortController();
  const disconnect = () => broken.abort(new Unreachable(UNREACHABLE));
  const hide = () => host().isOutOfSight() && broken.abort(HIDDEN);
  const timer = setTimeout(disconnect, LONGEST_STEP_MS);
  addEventListener("offline", disconnect);
  document.addEventListener("visibilitychange", hide);
  try {
    return await step(AbortSignal.any([stopped, broken.signal]));
  } finally {
    clearTimeout(timer);
    removeEventListener("offline", disconnect);
    document.removeEventListener("visibilitychange", hide);
  }
}

interface PollState<T> {
  value?: T;
  problem?: string;
}

/**
 * Loads a value while the page is visible.
 * @param key a new key loads the value again; undefined loads nothing
 * @param everyMs the pause after a result; without it, loading ends with the first result, or with an error that is not temporary
 */
export function usePolled<T>(
  key: string | undefined,
  load: (signal: AbortSignal) => Promise<T>,
  everyMs?: number,
): PollState<T> {
  const [state, setState] = useState<PollState<T>>({});
  useEffect(() => {
    if (key === undefined) return undefined;
    const onProblem = (problem: string) => setState((before) => ({ ...before, problem }));
    return poll(async (signal) => {
      try {
        const value = await load(signal);
        signal.throwIfAborted();
        setState({ value });
      } catch (error) {
        signal.throwIfAborted();
        if (everyMs !== undefined || !(error instanceof ToolFailed) || error.isTemporary) throw error;
        onProblem(error.message);
      }
      return everyMs;
    }, onProblem);
  }, [key]);
  return state;
}

/** A list of a tool. @param args the call's arguments; undefined lists nothing */
export function useList<T>(
  name: keyof typeof POLL_MS,
  args: Record<string, unknown> | undefined,
): PollState<T> {
  const key = args && JSON.stringify([name, args]);
  return usePolled(key, async (signal) => (await callTool<T>(name, args, signal)).data, POLL_MS[name]);
}

/** Resolves after `ms` milliseconds, when the network returns, at a `refresh`, or when the signal aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      for (const event of ["online", "refresh"]) removeEventListener(event, finish);
      signal.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, signal.aborted ? 0 : ms);
    for (const event of ["online", "refresh"]) addEventListener(event, finish);
    signal.addEventListener("abort", finish);
  });
}

function untilVisible(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const onVisible = () => {
      if (host().isOutOfSight() && !signal.aborted) return;
      document.removeEventListener("visibilitychange", onVisible);
      signal.removeEventListener("abort", onVisible);
      done();
    };
    document.addEventListener("visibilitychange", onVisible);
    signal.addEventListener("abort", onVisible);
    onVisible();
  });
}
