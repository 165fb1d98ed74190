/**
 * Ends a sandbox that fills the kernel's memory with objects that count in no control group: file locks, connections that nobody
 * accepts, unfinished datagrams, or anything else. The kernel does not say who made them. So when they have grown by the limit,
 * the busy sandboxes run in turns: in each turn one of them runs, or none, while the others are frozen. If the memory grows in all
 * turns of one sandbox, and less in the turns of none, the guard ends that sandbox.
 *
 * Growth of the machine itself raises the limit, and so does growth that the turns do not explain. A sandbox that holds memory
 * and stops growing is not ended: the limit bounds what it holds. Without control groups that pause processes and count memory,
 * the guard does nothing.
 */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { canFreeze, countedKernelMemory, freeze, isFrozen, processorTime, thaw } from "./freezer.ts";
import { STOPPED_BECAUSE } from "./texts.ts";

const MiB = 1024 * 1024;
/** Above this share of the limit, the memory is measured often. */
const NEAR = 0.75;
const NEAR_INTERVAL_MS = 20;
/** Turns double if they show nothing, because slow growth is seen only in long turns. */
const TURN_MS = { first: 40, most: 320 };
/** With many busy sandboxes, turns are shorter, so that nobody waits for more than about five seconds. */
const ALL_TURNS_MS = 2000;
/** How often a suspicion from the first turn of each sandbox is tested. */
const CONFIRMATIONS = 3;
/** After a round without a result, the next one needs growth by this share of the limit. Later more, because turns become longer. */
const STEP = { first: 1 / 16, most: 1 / 8 };
/** A sandbox with less processor time since the last turns cannot have caused the growth. */
const LEAST_PROCESSOR_MS = 5;
/**
 * A sandbox may stop as soon as it notices that it was frozen, so that no test confirms its growth. The first turn of a round is
 * unnoticed. It is longer, and only this much more growth than noise counts. If a sandbox grows in this many of its unnoticed turns
 * in succession, and the machine alone in none of as many, the guard ends the sandbox. Growth of the machine that comes and goes
 * by chance accuses a sandbox once in 4 ** 5 times at most.
 */
const UNNOTICED = { turns: 4, factor: 3, count: 5 };
/** How long to wait until all processes are frozen. Each one needs the processor for a moment, which takes long under load. */
const FREEZE_MS = 1000;
/** When a round ends without a result, at the latest. A sandbox counts as hanging if it is paused for 15 seconds. */
const ROUND_MS = 8000;
const FREEZE_LOOK_MS = 2;
const END_TIMEOUT_MS = 5000;
/** Memory in transit between free lists and its users looks used. The least of several measurements contains little of it. */
const MEASUREMENTS = { count: 6, everyMs: 2 };

/** Bytes of the kernel that count in no control group of the sandboxes. */
interface Uncounted {
  /** All pages that belong to no program and no file. Complete, but other programs of a busy machine change it by 10 MiB. */
  pages: number;
  /** Objects that the kernel cannot reclaim. Steady, but lacks some kinds, and less for other objects that count in a group. */
  objects: number;
}
const KINDS = ["pages", "objects"] as const;
/** Less growth in a turn is noise. */
const LEAST_GROWTH: Uncounted = { pages: 4 * MiB, objects: MiB };

/** A sandbox, or undefined for none: then the machine is alone. */
type Runner = EngineSandbox | undefined;

/** @returns the check. `wasIdle`: no sandbox ran since the last one, so that all memory is the machine's. */
export function guardKernelMemory(
  groups: readonly string[],
  limit: number,
  running: () => EngineSandbox[],
): (wasIdle: boolean) => Promise<void> {
  if (!canFreeze(groups)) return () => Promise.resolve();
  /** What the machine uses for itself, as far as known. */
  let base = Infinity;
  let step = STEP.first;
  let turnMs = TURN_MS.first;
  /** The processor time of each sandbox when the memory came near to its limit, or the last turns ended; undefined before. */
  let before: Map<EngineSandbox, number> | undefined;
  /** Successive unnoticed turns with the result that accuses a sandbox: it grew, or the machine did not. */
  const strikes = new Map<Runner, number>();

  async function check(wasIdle: boolean): Promise<void> {
    let { pages } = uncounted(groups);
    base = wasIdle ? pages : Math.min(base, pages);
    while (pages - base < limit) {
      if (pages - base < limit * NEAR || running().length === 0) {
        before = undefined;
        step = STEP.first;
        turnMs = TURN_MS.first;
        strikes.clear();
        return;
      }
      if (before === undefined) await mark();
      await sleep(NEAR_INTERVAL_MS, undefined, { ref: false });
      ({ pages } = uncounted(groups));
    }
    if ((await steady(groups)).pages - base < limit) return;
    const cause = await findCause();
    if (cause === "machine") base = (await steady(groups)).pages;
    else if (cause === "unknown") {
      // Without more growth, another round would only pause sandboxes.
      base = Math.max(base, (await steady(groups)).pages - limit * (1 - step));
      step = Math.min(STEP.most, step * 2);
      turnMs = Math.min(TURN_MS.most, turnMs * 2);
    } else {
      cause.end(STOPPED_BECAUSE.kernel);
      await Promise.race([cause.ended, sleep(END_TIMEOUT_MS, undefined, { ref: false })]);
    }
    await mark();
  }

  async function mark(): Promise<void> {
    const times = running().map(async (sandbox) => [sandbox, await processorTime(sandbox.groups)] as const);
    before = new Map(await Promise.all(times));
  }

  async function findCause(): Promise<EngineSandbox | "machine" | "unknown"> {
    const all = running();
    const used = await Promise.all(all.map(async (sandbox) => await processorTime(sandbox.groups)));
    const busy = all.filter(
      (sandbox, index) => (used[index] ?? 0) - (before?.get(sandbox) ?? 0) >= LEAST_PROCESSOR_MS,
    );
    const runners: Runner[] = shuffled([...busy, undefined]);
    const [unnoticed] = runners;
    const ms = Math.max(TURN_MS.first, Math.min(turnMs, ALL_TURNS_MS / runners.length));
    const paused = new Set<EngineSandbox>();
    const growths = new Map<Runner, Uncounted[]>();
    /** @returns false if time is up, or if others could not be paused, so that their growth would accuse the runner */
    const deadline = performance.now() + ROUND_MS;
    const takeTurn = async (runner: Runner, isFirst = false): Promise<boolean> => {
      if (performance.now() > deadline) return false;
      const growth = await growthWith(runner, paused, isFirst ? ms * UNNOTICED.turns : ms);
      if (growth !== undefined) growths.set(runner, [...(growths.get(runner) ?? []), growth]);
      return growth !== undefined;
    };
    try {
      for (const [place, runner] of runners.entries())
        if (!(await takeTurn(runner, place === 0))) return "unknown";
      const isLarge = first(growths, unnoticed) >= UNNOTICED.factor;
      if (isLarge && unnoticed === undefined) strikes.clear();
      else strikes.set(unnoticed, isLarge || unnoticed === undefined ? (strikes.get(unnoticed) ?? 0) + 1 : 0);
      const [suspect] = runners.toSorted((a, b) => first(growths, b) - first(growths, a));
      if (first(growths, suspect) < 1) return "unknown";
      for (let turn = 0; turn < CONFIRMATIONS; turn += 1) {
        if (!(await takeTurn(undefined))) return "unknown";
        if (suspect !== undefined && !(await takeTurn(suspect))) return "unknown";
      }
      const ofMachine = growths.get(undefined) ?? [];
      if (suspect === undefined) return growsAlways(ofMachine, []) ? "machine" : "unknown";
      if (growsAlways(growths.get(suspect) ?? [], ofMachine)) return suspect;
      const isAccused = [suspect, undefined].every((runner) => (strikes.get(runner) ?? 0) >= UNNOTICED.count);
      return isAccused ? suspect : "unknown";
    } finally {
      await Promise.all([...paused].map(async (sandbox) => await thaw(sandbox.groups)));
    }
  }

  async function growthWith(
    runner: Runner,
    paused: Set<EngineSandbox>,
    ms: number,
  ): Promise<Uncounted | undefined> {
    if (runner !== undefined) await thaw(runner.groups);
    // Includes sandboxes that have started since the round began.
    const others = running().filter((sandbox) => sandbox !== runner);
    for (const sandbox of others) paused.add(sandbox);
    if (!(await freezeAll(others))) return undefined;
    const atFirst = await steady(groups);
    await sleep(ms);
    const atLast = await steady(groups);
    return { pages: atLast.pages - atFirst.pages, objects: atLast.objects - atFirst.objects };
  }

  return check;
}

/** How large growth is. From 1, it is more than noise. */
function sizeOf(growth: Uncounted): number {
  return Math.max(...KINDS.map((kind) => growth[kind] / LEAST_GROWTH[kind]));
}

function first(growths: Map<Runner, Uncounted[]>, runner: Runner): number {
  const [growth] = growths.get(runner) ?? [];
  return growth === undefined ? 0 : sizeOf(growth);
}

/** Whether each of these turns shows more growth of a kind than any of the others. */
function growsAlways(turns: Uncounted[], others: Uncounted[]): boolean {
  return KINDS.some((kind) => {
    const least = Math.min(...turns.map((growth) => growth[kind]));
    return least >= LEAST_GROWTH[kind] && others.every((growth) => growth[kind] < least);
  });
}

async function freezeAll(sandboxes: EngineSandbox[]): Promise<boolean> {
  await Promise.all(sandboxes.map(async (sandbox) => await freeze(sandbox.groups)));
  for (const deadline = performance.now() + FREEZE_MS; ;) {
    const frozen = await Promise.all(
      sandboxes.map(async ({ groups, hasEnded }) => hasEnded || (await isFrozen(groups))),
    );
    if (!frozen.includes(false)) return true;
    if (performance.now() > deadline) return false;
    await sleep(FREEZE_LOOK_MS);
  }
}

async function steady(groups: readonly string[]): Promise<Uncounted> {
  const least = uncounted(groups);
  for (let measurement = 1; measurement < MEASUREMENTS.count; measurement += 1) {
    await sleep(MEASUREMENTS.everyMs);
    const { pages, objects } = uncounted(groups);
    least.pages = Math.min(least.pages, pages);
    least.objects = Math.min(least.objects, objects);
  }
  return least;
}

/** Reads everything at once, because memory changes its use all the time. */
function uncounted(groups: readonly string[]): Uncounted {
  const zones = readFileSync("/proc/zoneinfo", "latin1");
  const counted = countedKernelMemory(groups);
  const meminfo = readFileSync("/proc/meminfo", "latin1");
  const sum = (pattern: RegExp) =>
    Array.from(zones.matchAll(pattern), ([, pages]) => Number(pages)).reduce((all, pages) => all + pages, 0);
  const kiB = (name: string) => Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(meminfo)?.[1] ?? 0) * 1024;
  const known = sum(/^ +(?:pages free|count:|nr_file_pages|nr_anon_pages|nr_zspages) +(\d+)/gm);
  const share = 1 - known / sum(/^ +managed +(\d+)/gm);
  return {
    pages: share * kiB("MemTotal") - kiB("Hugetlb") - counted,
    objects: kiB("SUnreclaim") - counted,
  };
}

function shuffled<T>(values: T[]): T[] {
  return values
    .map((value) => ({ value, order: Math.random() }))
    .toSorted((a, b) => a.order - b.order)
    .map(({ value }) => value);
}
