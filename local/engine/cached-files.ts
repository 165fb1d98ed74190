/**
 * Finds cached files of sandboxes that the kernel cannot free. Programs can keep the pages of files in pipes and sockets (`sendfile`), up to
 * the size of all files that they can read. A cache usually is no reason to end a sandbox. But when kept pages and other memory reached the
 * limit of all sandboxes, the programs of all sandboxes waited without end.
 */
import type { EngineSandbox } from "./engine-sandbox.ts";
import { reclaim } from "./free-names.ts";
import { groupsWith, measureMemory, memoryWithCacheOf } from "./group-use.ts";
import { sum } from "./sum.ts";
import { largestPrincipal, measureUses, sumOf } from "./uses.ts";

/** A principal needs at least so many cached files, besides those that remained last time, before the kernel tries to free them. */
const MIN_FREED_BYTES = 128 * 1024 * 1024;

/** In version 1, only one of a sandbox's groups counts memory. */
const groupsOf = ({ chargedGroups }: EngineSandbox) => groupsWith("memory.stat", chargedGroups);
const withCache = (sandbox: EngineSandbox) => sum(groupsOf(sandbox).map(memoryWithCacheOf));

/** If the kernel has freed less than this part in ten seconds, it cannot free the rest. It frees clean files in a second. */
const LEAST_FREED = 1 / 8;

/**
 * Lets the kernel free cached files. It goes through all of them again and again, while programs that wait for memory do the same: with
 * low priority, that did not end on a busy machine.
 * @returns whether the rest cannot be freed
 */
async function tryToFree(groups: readonly string[], measure: () => Promise<number>): Promise<boolean> {
  const before = await measure();
  const results = await Promise.all(groups.map((group) => reclaim(group, 0)));
  if (results.includes("impossible")) return false;
  return results.every((result) => result === "done") || before - (await measure()) < before * LEAST_FREED;
}

/** How many bytes of cached files count for sandboxes that have ended, because these have read them first. */
export async function filesOfEnded(
  engineGroups: readonly string[],
  sandboxes: () => EngineSandbox[],
): Promise<number> {
  const uses = await measureUses(sandboxes(), async (one) => (await measureMemory(groupsOf(one))).cached);
  return (await measureMemory(groupsWith("memory.stat", engineGroups))).cached - sumOf(uses);
}

/**
 * How many of these files the kernel cannot free, because others keep them. 0 if there are fewer than `least`, or if less than `full` of the
 * memory of all sandboxes is used.
 */
export async function keptOfEnded(
  engineGroups: readonly string[],
  sandboxes: () => EngineSandbox[],
  full: number,
  least: number,
): Promise<number> {
  const groups = groupsWith("memory.stat", engineGroups);
  const measure = async () => await filesOfEnded(groups, sandboxes);
  if (sum(groups.map(memoryWithCacheOf)) < full || (await measure()) < least) return 0;
  const kept = (await tryToFree(groups, measure)) ? await measure() : 0;
  return kept < least ? 0 : kept;
}

export class CachedFiles {
  /** How many bytes of cached files remained of each sandbox when the kernel last tried to free them. */
  readonly #kept = new WeakMap<EngineSandbox, number>();

  /** The memory of a sandbox that the kernel cannot free. @param isExhausted whether it has just tried to free all it can */
  async memoryOf(sandbox: EngineSandbox, isExhausted: boolean): Promise<number> {
    if (isExhausted) return withCache(sandbox);
    const { used, cached } = await measureMemory(groupsOf(sandbox));
    return used + this.#keptOf(sandbox, cached);
  }

  /**
   * If the memory of all sandboxes is used up with the cached files, lets the kernel free those of the principal that has most new ones, to
   * see which it cannot free. @param full how many bytes all sandboxes may have
   */
  async free(sandboxes: EngineSandbox[], full: number): Promise<void> {
    if (sum(sandboxes.map(withCache)) < full) return;
    const uses = await measureUses(sandboxes, async (sandbox) => {
      const { cached } = await measureMemory(groupsOf(sandbox));
      return cached - this.#keptOf(sandbox, cached);
    });
    const largest = largestPrincipal(uses);
    if (sumOf(largest) >= MIN_FREED_BYTES) await Promise.all(largest.map((use) => this.#free(use.sandbox)));
  }

  async #free(sandbox: EngineSandbox): Promise<void> {
    const groups = groupsOf(sandbox);
    const isTried = await tryToFree(groups, async () => (await measureMemory(groups)).cached);
    if (isTried) this.#kept.set(sandbox, (await measureMemory(groups)).cached);
  }

  /** @param cached a sandbox's cached files: it no longer keeps more than these */
  #keptOf(sandbox: EngineSandbox, cached: number): number {
    const kept = Math.min(this.#kept.get(sandbox) ?? 0, cached);
    this.#kept.set(sandbox, kept);
    return kept;
  }
}
