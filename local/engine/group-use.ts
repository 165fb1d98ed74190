/** What the processes of control groups use. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { loadText, readShared, readText } from "./host-files.ts";
import { sum } from "./sum.ts";

/** Whether a group has this file. An asynchronous attempt to read takes six times as long as this. */
export const hasFile = (group: string, file: string) => existsSync(join(group, file));

const groupsByFile = new WeakMap<readonly string[], Map<string, string[]>>();

/**
 * Those of the groups that have this file: in version 1, each group has only the files of its controller. The guard measures each sandbox
 * four times a second, and takes twice as long if it looks for the files each time.
 * @param groups a list that does not change
 */
export function groupsWith(file: string, groups: readonly string[]): string[] {
  const known = groupsByFile.get(groups) ?? new Map<string, string[]>();
  groupsByFile.set(groups, known);
  const found = known.get(file) ?? groups.filter((group) => hasFile(group, file));
  // A group without processes may be missing: another engine removes it, and the next sandbox makes it again.
  if (found.length > 0) known.set(file, found);
  return found;
}

/**
 * For each byte of the kernel's memory that a group counts, at most this many bytes count in no group. Measured for directories in each
 * other: the list of a directory's entries (maple_node) takes 256 bytes.
 */
const UNCOUNTED_PART = 0.3;

/** The most bytes that `memoryOf` can return. */
export const mostMemoryOf = (group: string) => memoryWithCacheOf(group) * (1 + UNCOUNTED_PART);

/** Bytes of memory, including the file cache; 0 if the group does not count memory. */
export function memoryWithCacheOf(group: string): number {
  const file = ["memory.current", "memory.usage_in_bytes"].find((name) => hasFile(group, name));
  return file === undefined ? 0 : Number(readText(join(group, file)));
}

/**
 * Bytes of memory, also uncounted ones of the kernel, but without the file cache, which the kernel can reclaim; 0 if the group's counts
 * cannot be read. The lists of file pages (`inactive_file`) are no measure of the cache: a program can put its own memory there
 * (MADV_FREE) and write to it again.
 */
export const memoryOf = async (group: string): Promise<number> =>
  await withoutCache(group, memoryWithCacheOf(group));

/** @param used the group's memory with the file cache */
async function withoutCache(group: string, used: number): Promise<number> {
  const statistics = used === 0 ? "" : await loadText(join(group, "memory.stat"));
  if (statistics === "") return 0;
  const isVersion1 = /^total_cache /m.test(statistics);
  const of = (name: string) =>
    Number(new RegExp(`^${isVersion1 ? "total_" : ""}${name} (\\d+)$`, "m").exec(statistics)?.[1] ?? 0);
  // The files of tmpfs, and locked pages, cannot be reclaimed.
  const cached = of(isVersion1 ? "cache" : "file") - of("shmem") - of("unevictable");
  return Math.max(0, used - Math.max(0, cached)) + (await kernelMemoryOf(group)) * UNCOUNTED_PART;
}

/** The memory of a sandbox without its cached files, and these files. Reads each number once, so that both belong together. */
export async function measureMemory(groups: readonly string[]): Promise<{ used: number; cached: number }> {
  const all = groups.map((group) => ({ group, bytes: memoryWithCacheOf(group) }));
  const used = sum(await Promise.all(all.map(({ group, bytes }) => withoutCache(group, bytes))));
  return { used, cached: Math.max(0, sum(all.map(({ bytes }) => bytes)) - used) };
}

/**
 * A part of the kernel's memory for a group. Version 1 does not distinguish the parts.
 * @param names the part's names in version 2 of control groups. The first one that the kernel knows counts
 */
async function kernelPartOf(group: string, ...names: string[]): Promise<number> {
  const version1 = readText(join(group, "memory.kmem.usage_in_bytes"));
  const version2 = version1 === "" ? await loadText(join(group, "memory.stat")) : "";
  const counts = names.map((name) => new RegExp(`^${name} (\\d+)$`, "m").exec(version2)?.[1]);
  return Number(counts.find((count) => count !== undefined) ?? version1);
}

/** All memory of the kernel for a group; before Linux 5.18, in version 2, only slabs that it cannot free. */
export const kernelMemoryOf = (group: string) => kernelPartOf(group, "kernel", "slab_unreclaimable");
/** Memory that the kernel can free, such as names. */
export const freeableMemoryOf = (group: string) => kernelPartOf(group, "slab_reclaimable");

/** The number of a group's processes and threads, including those in groups inside it; 0 if the group does not count them. */
export const processesOf = async (group: string) => Number(readText(join(group, "pids.current")));

/** The processor time that the processes of groups have used; 0 if no group counts it. */
export function processorSecondsOf(groups: readonly string[]): number {
  const [ofVersion1] = groupsWith("cpuacct.usage", groups);
  if (ofVersion1 !== undefined) return Number(readShared(join(ofVersion1, "cpuacct.usage"))) / 1e9;
  const statistics = groupsWith("cpu.stat", groups).map((group) => readShared(join(group, "cpu.stat")));
  return Math.max(0, ...statistics.map((text) => Number(/^usage_usec (\d+)$/m.exec(text)?.[1] ?? 0) / 1e6));
}

/**
 * Returns a function that tells whether programs of these groups have run since its last call. It is true also if no group counts
 * their processor time.
 */
export function activityOf(groups: readonly string[]): () => boolean {
  let before = 0;
  return () => {
    const seconds = processorSecondsOf(groups);
    const haveRun = seconds === 0 || seconds !== before;
    before = seconds;
    return haveRun;
  };
}

/** The highest count of the groups. If each controller has a separate group, only one group has a count. */
export async function countOf(
  groups: readonly string[],
  count: (group: string) => Promise<number>,
): Promise<number> {
  return Math.max(0, ...(await Promise.all(groups.map(count))));
}

/** The kernel looks for memory in vain if it visits so many pages (256 MiB) and frees less than this part of them. Measured: a 17,000th. */
const VAIN_PAGES = 65_536;
const VAIN_PART = 1 / 1024;
/** If the kernel has visited no page for so long, in milliseconds, no program waits any more. It updates these numbers every 2 s. */
const SEARCH_MS = 3000;
/** A group of version 2 whose programs wait uses about as much as `memory.high`. */
const HIGH_PART = 0.97;

/**
 * Returns a function that tells whether programs of these groups wait until memory is free. In version 2 of control groups, a program that
 * passes `memory.high` first visits all pages to free some, again and again. With 800 MB that could not be freed, one page fault of a
 * neighbour took more than a minute in an emulator.
 */
export function memoryLack(groups: readonly string[]): () => boolean {
  let [visitedBefore, freedBefore] = [Infinity, Infinity];
  let [visitedLast, searchedAt] = [Infinity, -Infinity];
  let isVain = false;
  const looksInVain = (group: string) => {
    const isNear = memoryWithCacheOf(group) > HIGH_PART * Number(readText(join(group, "memory.high")));
    if (!isNear) {
      [visitedBefore, isVain] = [Infinity, false];
      return false;
    }
    const statistics = readText(join(group, "memory.stat"));
    const of = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(statistics)?.[1] ?? 0);
    const [visited, freed] = [of("pgscan"), of("pgsteal")];
    if (visited !== visitedLast) [visitedLast, searchedAt] = [visited, performance.now()];
    const isFirst = visitedBefore === Infinity;
    if (!isFirst && visited - visitedBefore < VAIN_PAGES)
      return (
        isVain && freed - freedBefore < VAIN_PAGES * VAIN_PART && performance.now() - searchedAt < SEARCH_MS
      );
    isVain = !isFirst && freed - freedBefore < (visited - visitedBefore) * VAIN_PART;
    [visitedBefore, freedBefore] = [visited, freed];
    return isVain;
  };
  const isUnderOOM = (group: string) => /^under_oom 1$/m.test(readText(join(group, "memory.oom_control")));
  return () => {
    const ofVersion1 = groupsWith("memory.oom_control", groups);
    // Groups of version 1 have no limit of the other kind, and to look for it takes longer than to read this file.
    if (ofVersion1.length > 0) return ofVersion1.some(isUnderOOM);
    return groupsWith("memory.high", groups).some(looksInVain);
  };
}
