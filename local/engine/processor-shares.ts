/**
 * Leaves part of the sandboxes' processor time to those that use little.
 *
 * By their equal weights, sandboxes should share the processors equally. But with short wake-ups, as of two programs that pass a
 * byte back and forth, Linux 6.18 gave one sandbox all the time: the commands of others waited until these programs ended. So when
 * sandboxes use most of their time, each busy one gets the same limit.
 */
import { availableParallelism } from "node:os";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { readText } from "./host-files.ts";
import { limitProcessors, processorSecondsOf, SANDBOX_PROCESSORS } from "./limits.ts";
import type { SandboxRegistry } from "./running-sandboxes.ts";

const CHECK_INTERVAL_MS = 250;
/** The part of the sandboxes' processors that busy ones get. The rest is for short commands, and for the start of sandboxes. */
const BUSY_PART = 7 / 8;
/** From this part of the limits on, sandboxes are limited. It is a little less than the limits, so that they remain under load. */
const FULL_PART = 0.9;
/** Sandboxes get at least as much as by their weight, if other programs use all processors. */
const MIN_PROCESSORS = availableParallelism() / 3;
/** From this use on, in processors, a sandbox is busy. */
const BUSY_USE = 0.1;
/** How long a sandbox counts as busy, and the processors as full, after the last such use. Short pauses do not end the limits. */
const HOLD_MS = 5000;

/** A limit that differs by less stays, because each change costs time of the kernel. */
const SAME_LIMIT = 0.05;

interface Use {
  seconds: number;
  /** In processors, since the last check. */
  used: number;
  busyUntil: number;
  /** In processors. */
  limit: number | undefined;
}

/**
 * The highest limit with which these sandboxes together use at most `processors`. What some leave unused, the others get.
 * @param uses the processors that each uses now. One that uses nearly as much as its share could use more
 */
export function equalLimit(uses: readonly number[], processors: number): number {
  let left = processors;
  let sharers = uses.length;
  for (const used of uses.toSorted((a, b) => a - b)) {
    if (sharers === 1 || used > (0.9 * left) / sharers) break;
    left -= used;
    sharers -= 1;
  }
  return left / sharers;
}

/** How long the processors that the server and its sandboxes may use have been idle, together. */
function idleSeconds(): number {
  const list = /^Cpus_allowed_list:\s*(.*)$/m.exec(readText("/proc/self/status"))?.[1] ?? "";
  const ranges = list.split(",").map((range) => range.split("-").map(Number));
  const isAllowed = (processor: number) =>
    ranges.some(([first = 0, last = first]) => processor >= first && processor <= last);
  const times = readText("/proc/stat").matchAll(/^cpu(\d+) \d+ \d+ \d+ (\d+) (\d+)/gm);
  const allowed = Array.from(times, (fields) => fields.slice(1).map(Number)).filter(([processor = 0]) =>
    isAllowed(processor),
  );
  return allowed.reduce((sum, [, idle = 0, waiting = 0]) => sum + (idle + waiting) / 100, 0);
}

/** Limits busy sandboxes while there are others. @returns a function that stops this */
export function shareProcessors(registry: SandboxRegistry): () => void {
  const uses = new WeakMap<EngineSandbox, Use>();
  let measuredAt = performance.now();
  let idleBefore = idleSeconds();
  let fullUntil = -Infinity;
  const check = async () => {
    const now = performance.now();
    const elapsedSeconds = (now - measuredAt) / 1000;
    measuredAt = now;
    let processors = 0;
    const measured = await Promise.all(
      registry.list().map(async (sandbox) => {
        const seconds = Math.max(0, ...(await Promise.all(sandbox.groups.map(processorSecondsOf))));
        const use = uses.get(sandbox) ?? { seconds, used: 0, busyUntil: -Infinity, limit: undefined };
        uses.set(sandbox, use);
        use.used = (seconds - use.seconds) / elapsedSeconds;
        use.seconds = seconds;
        processors += use.used;
        if (use.used > BUSY_USE) use.busyUntil = now + HOLD_MS;
        return { sandbox, use };
      }),
    );
    const idleNow = idleSeconds();
    // Other programs leave less than all. So do threads of the kernel, which work when sandboxes write to pseudo terminals.
    const left = processors + (idleNow - idleBefore) / elapsedSeconds;
    idleBefore = idleNow;
    const available = Math.max(MIN_PROCESSORS, Math.min(SANDBOX_PROCESSORS, left));
    const allowed = available * BUSY_PART;
    if (processors > allowed * FULL_PART) fullUntil = now + HOLD_MS;
    const isShared = now < fullUntil && registry.count > 1;
    const busy = measured.filter(({ use }) => isShared && now < use.busyUntil);
    const busyLimit = equalLimit(
      busy.map(({ use }) => use.used),
      allowed,
    );
    for (const { sandbox, use } of measured) {
      const limit = busy.some((other) => other.use === use) ? busyLimit : undefined;
      const isSame = limit && use.limit ? Math.abs(limit / use.limit - 1) < SAME_LIMIT : limit === use.limit;
      if (isSame) continue;
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
