/** A sandbox that is no process, for tests of the guard with control groups that are plain directories. */
import { onTestFinished } from "vitest";
import { attempt } from "../../container/sandboxd/file-error.ts";
import type { EngineSandbox } from "../../local/engine/engine-sandbox.ts";
import { defaultLimits, type Limits } from "../../local/engine/limits.ts";
import { guardMachine } from "../../local/engine/machine-guard.ts";

/**
 * Lets the guard watch a sandbox until the test ends.
 * @param group the directory of all sandboxes' group
 * @param onLook changes the group's files before each look of the guard. It gets the look's number, from 1 on
 * @returns for which reasons the guard has ended the sandbox so far
 */
export function guardOneSandbox(
  group: string,
  onLook: (look: number) => void,
  limits?: Partial<Limits>,
): readonly string[] {
  const reasons: string[] = [];
  let looks = 0;
  const sandbox = {
    groups: [],
    get chargedGroups() {
      looks += 1;
      // The guard can look once more after the test, when the directory is gone.
      attempt(() => onLook(looks), undefined);
      return [];
    },
    get isEnding() {
      return reasons.length > 0;
    },
    end: (reason: string) => reasons.push(reason),
  };
  const registry = { count: 1, list: () => [sandbox as unknown as EngineSandbox] };
  onTestFinished(guardMachine([group], defaultLimits(limits), registry));
  return reasons;
}
