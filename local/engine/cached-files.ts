/**
 * Finds sandboxes whose cached files the kernel cannot free. Programs can keep the pages of files in pipes and sockets (`sendfile`), up to
 * the size of all files that they can read. A cache usually is no reason to end a sandbox. But when kept pages and other memory reached the
 * limit of all sandboxes, the programs of all sandboxes waited without end.
 */
import type { EngineSandbox } from "./engine-sandbox.ts";
import { reclaim } from "./free-names.ts";
import { memoryOfAll, memoryWithCacheOf } from "./group-use.ts";
import { sum } from "./sum.ts";
import { largestPrincipal, measureUses, sumOf } from "./uses.ts";

/** More than the libraries of running programs, which the kernel does not free at once. */
const MAX_KEPT_BYTES = 128 * 1024 * 1024;

const withCache = ({ chargedGroups }: EngineSandbox) => sum(chargedGroups.map(memoryWithCacheOf));
const withoutCache = async ({ chargedGroups }: EngineSandbox) => await memoryOfAll(chargedGroups);
const cacheOf = async (sandbox: EngineSandbox) =>
  Math.max(0, withCache(sandbox) - (await withoutCache(sandbox)));

export class CachedFiles {
  /** The sandboxes that kept much when the kernel last tried to free their cached files. */
  readonly #keepers = new WeakSet<EngineSandbox>();

  /** The memory of a sandbox that the kernel cannot free. @param isExhausted whether it has just tried to free all it can */
  async memoryOf(sandbox: EngineSandbox, isExhausted: boolean): Promise<number> {
    return isExhausted || this.#keepers.has(sandbox) ? withCache(sandbox) : await withoutCache(sandbox);
  }

  /**
   * If the memory of all sandboxes is used up with the cached files, lets the kernel free those of the principal that has most, to see which
   * it cannot free. @param full how many bytes all sandboxes may have
   */
  async free(sandboxes: EngineSandbox[], full: number): Promise<void> {
    if (sum(sandboxes.map(withCache)) < full) return;
    const uses = await measureUses(
      sandboxes.filter((sandbox) => !this.#keepers.has(sandbox)),
      cacheOf,
    );
    const largest = largestPrincipal(uses);
    if (sumOf(largest) < MAX_KEPT_BYTES) return;
    await Promise.all(
      largest.map(async ({ sandbox, use }) => {
        await Promise.all(sandbox.chargedGroups.map((group) => reclaim(group, use)));
        if ((await cacheOf(sandbox)) > MAX_KEPT_BYTES) this.#keepers.add(sandbox);
      }),
    );
  }
}
