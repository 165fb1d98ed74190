/**
 * Leaves part of the sandboxes' processor time to those that use little.
 *
 * By their equal weights, sandboxes should share the processors equally. But with short wake-ups, as of two programs that pass a byte
 * back and forth, Linux 6.18 gave one sandbox all the time: the commands of others waited until these programs ended. So when sandboxes
 * use most of their time, each busy one gets an equal limit.
 */
import type { EngineSandbox } from "./engine-sandbox.ts";
import { limitProcessors, processorSecondsOf, SANDBOX_PROCESSORS } from "./limits.ts";
import type { SandboxRegistry } from "./running-sandboxes.ts";

const CHECK_INTERVAL_MS = 250;
/** The processors of all busy sandboxes together. The rest is for short commands, and for the start of sandboxes. */
const BUSY_PROCESSORS = (SANDBOX_PROCESSORS * 7) / 8;
/** From this use on, in processors, sandboxes are limited. It is a little less than the limits allow, so that limits remain under load. */
const FULL_PROCESSORS = BUSY_PROCESSORS * 0.9;
/** From this use on, in processors, a sandbox is busy. */
const BUSY_USE = 0.1;
/** How long a sandbox counts as busy, and the processors as full, after the last such use. Otherwise short pauses would end the limits. */
const HOLD_MS = 5000;

interface Use {
  seconds: number;
  busyUntil: number;
  /** In processors. */
  limit: number | undefined;
}

/** Limits busy sandboxes while there are others. @returns a function that stops this */
export function shareProcessors(registry: SandboxRegistry): () => void {
  const uses = new WeakMap<EngineSandbox, Use>();
  let measuredAt = performance.now();
  let fullUntil = -Infinity;
  const check = async () => {
    const now = performance.now();
    const elapsedSeconds = (now - measuredAt) / 1000;
    measuredAt = now;
    let processors = 0;
    const measured = await Promise.all(
      registry.list().map(async (sandbox) => {
        const seconds = Math.max(0, ...(await Promise.all(sandbox.groups.map(processorSecondsOf))));
        const use = uses.get(sandbox) ?? { seconds, busyUntil: -Infinity, limit: undefined };
        uses.set(sandbox, use);
        const used = (seconds - use.seconds) / elapsedSeconds;
        use.seconds = seconds;
        processors += used;
        if (used > BUSY_USE) use.busyUntil = now + HOLD_MS;
        return { sandbox, use };
      }),
    );
    if (processors > FULL_PROCESSORS) fullUntil = now + HOLD_MS;
    const isShared = now < fullUntil && registry.count > 1;
    const busy = measured.filter(({ use }) => isShared && now < use.busyUntil);
    for (const { sandbox, use } of measured) {
      const limit = busy.some((other) => other.use === use) ? BUSY_PROCESSORS / busy.length : undefined;
      if (limit === use.limit) continue;
      use.limit = limit;
      for (const group of sandbox.groups) await limitProcessors(group, limit);
    }
  };
  let isChecking = false;
  const timer = setInterval(() => {
    if (isChecking || registry.count === 0) return;
    isChecking = true;
    void check().finally(() => (isChecking = false));
  }, CHECK_INTERVAL_MS);
  timer.unref();
  return () => clearInterval(timer);
}
