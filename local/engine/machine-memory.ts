/** How much memory the machine's programs and its kernel use. */
import { readShared } from "./host-files.ts";
import { sum } from "./sum.ts";

/** The fields of /proc/meminfo about memory with a known use. KReclaimable contains the slabs that the kernel can reclaim. */
const NAMED =
  "MemFree Buffers Cached SwapCached AnonPages KReclaimable PageTables SecPageTables KernelStack Percpu Hugetlb Zswap";

/**
 * Bytes of memory that the machine's kernel uses and cannot reclaim: its slabs, and pages without a known use, such as the
 * data in sockets and pipes. Free pages that the kernel keeps for each processor, up to an eighth of the memory, do not count.
 * @returns undefined if the amount cannot be read, for example because the engine has no descriptors left
 */
export function kernelMemory(): number | undefined {
  const meminfo = readShared("/proc/meminfo");
  const zoneinfo = readShared("/proc/zoneinfo");
  if (meminfo === "" || zoneinfo === "") return undefined;
  const of = (name: string) => bytesIn(meminfo, name);
  const named = sum(NAMED.split(" ").map(of));
  const perProcessor = zoneinfo.matchAll(/^ +count: +(\d+)$/gm);
  const kept = sum(Array.from(perProcessor, ([, pages]) => Number(pages) * 4096));
  return of("MemTotal") - named - kept;
}

/** Bytes of `kernelMemory` in pages without a known use, such as the data in sockets and pipes. */
export function kernelPages(): number | undefined {
  const all = kernelMemory();
  return all === undefined ? undefined : all - bytesIn(readShared("/proc/meminfo"), "SUnreclaim");
}

/** Bytes of the machine's memory that the kernel cannot give to programs. */
export function usedMemory(): number {
  const meminfo = readShared("/proc/meminfo");
  return bytesIn(meminfo, "MemTotal") - bytesIn(meminfo, "MemAvailable");
}

const bytesIn = (meminfo: string, name: string) =>
  Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(meminfo)?.[1] ?? 0) * 1024;
