/**
 * Limits busy sandboxes, so that some processor time is left for the other sandboxes.
 *
 * All principals have the same weight, and so have all sandboxes of a principal, so Linux should give them equal shares of the processors.
 * But Linux 6.18 gave one sandbox all processor time when two of its programs passed a byte back and forth and so woke up often. Commands
 * of other sandboxes waited until these programs ended. So when the sandboxes use most of the processor time that they may use, each
 * principal with busy sandboxes gets the same limit, and its busy sandboxes get equal parts of it.
 *
 * Linux 6.18 stops a program that exceeded a limit only when its system call ends, and for programs that end, never. Until then it charges
 * the time to the limit of all sandboxes too. So while sandboxes use more than the limit of all sandboxes, the engine sets this limit again
 * at each check: then the kernel forgets what was used in advance. The limit is never off, because it protects the engine.
 */
import { availableParallelism } from "node:os";
import { TICK_MS } from "../../container/sandboxd/proc-stat.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { readText } from "./host-files.ts";
import { processorSecondsOf } from "./group-use.ts";
import { limitProcessors, SANDBOX_PROCESSORS } from "./limits.ts";
import type { SandboxRegistry } from "./running-sandboxes.ts";
import { sum } from "./sum.ts";

/**
 * Busy sandboxes together get this part of the processors that all sandboxes may use. The rest is for short commands, and for the
 * start of sandboxes.
 */
const BUSY_PART = 7 / 8;
/** A limit counts as used up if at least this part of it is used. Under load, sandboxes use a little less than their limits. */
const FULL_PART = 0.9;
/** The lowest sum of all limits. If other programs use all processors, `cpu.weight` (limits.ts) gives the sandboxes this many. */
const MIN_PROCESSORS = availableParallelism() / 3;
/** A sandbox that uses more than this many processors is busy. */
const BUSY_USE = 0.1;
/**
 * How many milliseconds a busy sandbox still counts as busy when it pauses, so that short pauses do not end its limit. Full
 * processors count as full for the same time.
 */
const HOLD_MS = 5000;

/**
 * When the limit of all sandboxes is set again, the sandboxes get the time of one more period (20 ms) in each interval between checks
 * (250 ms). So they get this part of the limit.
 */
const RENEWED_PART = 0.92;

/** If the new limit differs by a smaller part than this, the old limit stays, because each change takes time in the kernel. */
const SAME_LIMIT = 0.05;

interface Use {
  /** Sandboxes without a known principal count alone. */
  principal: unknown;
  seconds: number;
  /** In processors, since the last check. */
  used: number;
  busyUntil: number;
  /** In processors. */
  limit: number | undefined;
}

/**
 * The limit for each of these users (principals, or sandboxes of one), so that together they use at most `processors`. If one uses
 * less than its share, the others get the rest of that share.
 * @param uses how many processors each one uses now. One that uses nearly its whole share could use more than its share
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

/** The limits of busy sandboxes: each principal gets an equal share, and each of its sandboxes an equal share of that. */
export function limitsOf<Sandbox extends Pick<Use, "principal" | "used">>(
  busy: readonly Sandbox[],
  processors: number,
): Map<Sandbox, number> {
  const principals = [...Map.groupBy(busy, ({ principal }) => principal).values()];
  const usesOf = (sandboxes: readonly Sandbox[]) => sandboxes.map(({ used }) => used);
  const sums = principals.map((sandboxes) => sum(usesOf(sandboxes)));
  const ofPrincipal = equalLimit(sums, processors);
  return new Map(
    principals.flatMap((sandboxes) => {
      const limit = equalLimit(usesOf(sandboxes), ofPrincipal);
      return sandboxes.map((sandbox) => [sandbox, limit] as const);
    }),
  );
}

/** The numbers of the processors that the server and its sandboxes may use, as ranges. */
const ownProcessors = (/^Cpus_allowed_list:\s*(.*)$/m.exec(readText("/proc/self/status"))?.[1] ?? "")
  .split(",")
  .map((range) => range.split("-").map(Number));

function idleSeconds(): number {
  const isOwn = (processor: number) =>
    ownProcessors.some(([first = 0, last = first]) => processor >= first && processor <= last);
  const times = readText("/proc/stat").matchAll(/^cpu(\d+) \d+ \d+ \d+ (\d+) (\d+)/gm);
  const ticks = Array.from(times, (fields) => {
    const [processor = 0, idle = 0, waiting = 0] = fields.slice(1).map(Number);
    return isOwn(processor) ? idle + waiting : 0;
  });
  return (sum(ticks) * TICK_MS) / 1000;
}

/**
 * Returns a check that limits busy sandboxes while more than one sandbox runs.
 * @param engineGroups the groups of all sandboxes together
 */
export function shareProcessors(
  engineGroups: string[],
  registry: Pick<SandboxRegistry, "list" | "count">,
): () => Promise<void> {
  const uses = new WeakMap<EngineSandbox, Use>();
  let secondsBefore: number | undefined;
  let measuredAt = performance.now();
  let idleBefore = idleSeconds();
  let fullUntil = -Infinity;
  let wasOverdrawn = false;
  return async () => {
    const now = performance.now();
    const elapsedSeconds = (now - measuredAt) / 1000;
    measuredAt = now;
    const measured = registry.list().map((sandbox) => {
      const seconds = processorSecondsOf(sandbox.groups);
      const use: Use = uses.get(sandbox) ?? {
        principal: sandbox.principal ?? sandbox,
        seconds,
        used: 0,
        busyUntil: -Infinity,
        limit: undefined,
      };
      uses.set(sandbox, use);
      use.used = (seconds - use.seconds) / elapsedSeconds;
      use.seconds = seconds;
      return { groups: sandbox.groups, use };
    });
    const secondsOfAll = processorSecondsOf(engineGroups);
    // Also of sandboxes that start, and of ended ones, whose files the kernel may still be closing.
    const processors = (secondsOfAll - (secondsBefore ?? secondsOfAll)) / elapsedSeconds;
    secondsBefore = secondsOfAll;
    for (const { use } of measured) if (use.used > BUSY_USE) use.busyUntil = now + HOLD_MS;
    const idleNow = idleSeconds();
    // The processors that sandboxes use or could use. Other programs use some processors too, and so do kernel threads that
    // handle output to pseudo terminals.
    const left = processors + (idleNow - idleBefore) / elapsedSeconds;
    idleBefore = idleNow;
    const allowed = Math.max(MIN_PROCESSORS, Math.min(SANDBOX_PROCESSORS, left)) * BUSY_PART;
    if (processors > allowed * FULL_PART) fullUntil = now + HOLD_MS;
    const isShared = now < fullUntil && registry.count > 1;
    const isLimited = ({ busyUntil }: Use) => isShared && now < busyUntil;
    const busy = measured.map(({ use }) => use).filter(isLimited);
    const limits = limitsOf(busy, allowed);
    for (const { groups, use } of measured) {
      const limit = limits.get(use);
      const isSame = limit && use.limit ? Math.abs(limit / use.limit - 1) < SAME_LIMIT : limit === use.limit;
      if (isSame) continue;
      use.limit = limit;
      for (const group of groups) await limitProcessors(group, limit);
    }
    const isOverdrawn = processors > SANDBOX_PROCESSORS;
    if (isOverdrawn || wasOverdrawn)
      for (const group of engineGroups)
        await limitProcessors(group, SANDBOX_PROCESSORS * (isOverdrawn ? RENEWED_PART : 1));
    wasOverdrawn = isOverdrawn;
  };
}
