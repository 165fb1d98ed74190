import type { ActiveRun } from "./active-run.ts";
import { type End, type Execution, CANCELLED_BEFORE_START } from "./run-types.ts";

/**
 * Returns an execution that first waits for `before`. `before` resolves with the function that starts the real execution, or with
 * the run's end if nothing must start.
 * @param waiting what `before` waits for, shown to the run's caller
 * @param onUnused called if the run has ended before `before` resolves
 */
export function startAfter(
  run: ActiveRun,
  before: () => Promise<End | (() => Execution)>,
  {
    isInteractive = false,
    waiting,
    onUnused,
  }: { isInteractive?: boolean | undefined; waiting?: Execution["waiting"]; onUnused?: () => void } = {},
): Execution {
  let execution: Execution | undefined;
  const cancelledBeforeStart = Promise.withResolvers<End>();
  let isCancelled = false;
  const turn = async (): Promise<End> => {
    const next = await before();
    if (isCancelled || run.isEnded) {
      onUnused?.();
      return CANCELLED_BEFORE_START;
    }
    if (typeof next !== "function") return next;
    execution = next();
    return await execution.done;
  };
  return {
    done: Promise.race([turn(), cancelledBeforeStart.promise]),
    cancel: async () => {
      if (execution) return await execution.cancel();
      isCancelled = true;
      cancelledBeforeStart.resolve(CANCELLED_BEFORE_START);
    },
    type: isInteractive ? async (text) => (await execution?.type?.(text)) ?? 0 : undefined,
    waiting: () => (execution ? execution.waiting?.() : waiting?.()),
  };
}
