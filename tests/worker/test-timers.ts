/**
 * Keeps a test's fake timers out of actors. One workerd runs several test files, and the actors of earlier files, whose alarms set
 * timers, run in the same isolate. A fake timer would call them back in the test, which may not use an actor's objects.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { vi } from "vitest";

type Timer = (...args: unknown[]) => unknown;

/** Present in what a test and its hooks call. Actors get their calls from workerd, without it. */
const test = new AsyncLocalStorage<true>();

/** Runs a test, or a part of it that runs inside an actor. Outside, timers are real. */
export function withTestTimers<T>(run: () => T): T {
  return test.run(true, run);
}

const NAMES = ["setTimeout", "clearTimeout", "setInterval", "clearInterval"];
const timersNow = () => NAMES.map((name): Timer => Reflect.get(globalThis, name));

const { useFakeTimers } = vi;
vi.useFakeTimers = (config) => {
  vi.useRealTimers();
  const real = timersNow();
  useFakeTimers(config);
  for (const [at, fake] of timersNow().entries()) {
    const timer: Timer = (...args) => (test.getStore() ? fake : (real[at] ?? fake))(...args);
    // Vitest's own properties of a fake timer restore the real one.
    if (fake !== real[at]) Reflect.set(globalThis, NAMES[at] ?? "", Object.assign(timer, fake));
  }
  return vi;
};
