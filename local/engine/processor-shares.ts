/**
 * Leaves part of the sandboxes' processor time to those that use little.
 *
 * By their equal weights, sandboxes should share the processors equally. But with short wake-ups, as of two programs that pass a
 * byte back and forth, Linux 6.18 gave one sandbox all the time: the commands of others waited until these programs ended. So when
 * sandboxes use most of their time, each busy one gets the same limit.
 */
import { availableParallelism } from "node:os";
import { TICK_MS } from "../../container/sandboxd/proc-stat.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { readText } from "./host-files.ts";
import { countOf, limitProcessors, processorSecondsOf, SANDBOX_PROCESSORS } from "./limits.ts";
import type { SandboxRegistry } from "./running-sandboxes.ts";

/** The part of the sandboxes' processors that busy ones get. The rest is for short commands, and for the start of sandboxes. */
const BUSY_PART = 7 / 8;
/** From this part of a limit on, it counts as used up: under load, sandboxes use a little less than their limits. */
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
    if (sharers === 1 || used > (FULL_PART * left) / sharers) break;
    left -= used;
    sharers -= 1;
  }
  return left / sharers;
}

/** The processors that the server and its sandboxes may use, as ranges. */
const ownProcessors = (/^Cpus_allowed_list:\s*(.*)$/m.exec(readText("/proc/self/status"))?.[1] ?? "")
  .split(",")
  .map((range) => range.split("-").map(Number));

/** How long these processors have been idle, together. */
function idleSeconds(): number {
  const isOwn = (processor: number) =>
    ownProcessors.some(([first = 0, last = first]) => processor >= first && processor <= last);
  const times = readText("/proc/stat").matchAll(/^cpu(\d+) \d+ \d+ \d+ (\d+) (\d+)/gm);
  return Array.from(times, (fields) => fields.slice(1).map(Number)).reduce(
    (sum, [processor = 0, idle = 0, waiting = 0]) =>
      sum + (isOwn(processor) ? ((idle + waiting) * TICK_MS) / 1000 : 0),
    0,
  );
}

/** Returns a check that limits busy sandboxes while there are others. */
export function shareProcessors(registry: SandboxRegistry): () => Promise<void> {
  const uses = new WeakMap<EngineSandbox, Use>();
  let measuredAt = performance.now();
  let idleBefore = idleSeconds();
  let fullUntil = -Infinity;
  return async () => {
    const now = performance.now();
    const elapsedSeconds = (now - measuredAt) / 1000;
    measuredAt = now;
    const measured = await Promise.all(
      registry.list().map(async (sandbox) => {
        const seconds = await countOf(sandbox.groups, processorSecondsOf);
        const use = uses.get(sandbox) ?? { seconds, used: 0, busyUntil: -Infinity, limit: undefined };
        uses.set(sandbox, use);
        use.used = (seconds - use.seconds) / elapsedSeconds;
        use.seconds = seconds;
        if (use.used > BUSY_USE) use.busyUntil = now + HOLD_MS;
        return { groups: sandbox.groups, use };
      }),
    );
    const processors = measured.reduce((sum, { use }) => sum + use.used, 0);
    const idleNow = idleSeconds();
    // Other programs leave less than all. So do threads of the kernel, which work when sandboxes write to pseudo terminals.
    const left = processors + (idleNow - idleBefore) / elapsedSeconds;
    idleBefore = idleNow;
    const allowed = Math.max(MIN_PROCESSORS, Math.min(SANDBOX_PROCESSORS, left)) * BUSY_PART;
    if (processors > allowed * FULL_PART) fullUntil = now + HOLD_MS;
    const isShared = now < fullUntil && registry.count > 1;
    const isLimited = ({ busyUntil }: Use) => isShared && now < busyUntil;
    const busy = measured.map(({ use }) => use).filter(isLimited);
    const busyLimit = equalLimit(
      busy.map(({ used }) => used),
      allowed,
    );
    for (const { groups, use } of measured) {
      const limit = isLimited(use) ? busyLimit : undefined;
      const isSame = limit && use.limit ? Math.abs(limit / use.limit - 1) < SAME_LIMIT : limit === use.limit;
      if (isSame) continue;
      use.limit = limit;
      for (const group of groups) await limitProcessors(group, limit);
    }
  };
}
