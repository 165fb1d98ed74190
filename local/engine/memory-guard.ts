/**
 * Ends the sandbox that uses most memory before all of them together have used up theirs. The kernel would end the largest
 * process, of whatever sandbox, while one with many small processes goes on.
 */
import { memoryOf } from "./limits.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";

/** What a sandbox takes between two looks must fit into what is left. */
const lookMs = 250;
const most = 0.9;

/**
 * @param groups the engine's control groups
 * @param bytes what all sandboxes may have
 * @returns stops it
 */
export function guardMemory(groups: string[], bytes: number, sandboxes: () => EngineSandbox[]): () => void {
  let isLooking = false;
  const sumOf = async (of: readonly string[]) => Math.max(0, ...(await Promise.all(of.map(memoryOf))));
  const checkMemory = async () => {
    if (sandboxes().length === 0 || (await sumOf(groups)) < bytes * most) return;
    const uses = await Promise.all(
      sandboxes().map(async (sandbox) => ({ sandbox, used: await sumOf(sandbox.groups) })),
    );
    const [largest] = uses.toSorted((a, b) => b.used - a.used);
    if (largest === undefined) return;
    largest.sandbox.end("used most of the memory of all sandboxes, which was used up");
    await largest.sandbox.ended;
  };
  const timer = setInterval(() => {
    if (isLooking) return;
    isLooking = true;
    void checkMemory().finally(() => (isLooking = false));
  }, lookMs);
  timer.unref();
  return () => clearInterval(timer);
}
