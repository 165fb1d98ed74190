/** Ends servers, engines and other things that tests start. */
import { TestRunner, afterAll, onTestFinished } from "vitest";

/**
 * Calls `step` after the test that calls this. If no test runs yet, after the tests of the file or `describe` that calls this. Hooks
 * and concurrent tests cannot call it.
 */
export function doLater(step: () => unknown): void {
  const wholeStep = async () => void (await step());
  if (TestRunner.getCurrentTest()) onTestFinished(wholeStep);
  else afterAll(wholeStep);
}

/** Closes or stops `started`, at the time that `doLater` chooses. */
export function endLater<T extends { close(): unknown } | { stop(): unknown }>(started: T): T {
  doLater(() => ("close" in started ? started.close() : started.stop()));
  return started;
}
