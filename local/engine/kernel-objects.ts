/** How many kernel objects of a kind the machine has, and how many mappings of memory each sandbox has. */
import { Turns } from "../../src/shared/turns.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { readText } from "./host-files.ts";
import { runHost } from "./host-programs.ts";
import { membersOf } from "./limits.ts";
import { sum } from "./sum.ts";

/** How much processor time it may take to count a sandbox's mappings, in seconds. A sandbox that needs more has very many. */
const COUNT_SECONDS = 5;
const VERY_MANY = 1e12;
/** How many sandboxes are counted at once, and how long a sandbox waits for its turn, in milliseconds. */
const counts = new Turns(2);
const TURN_MS = 60_000;

/** How long the count may take. After that, the lists that were read count. */
export const COUNT_TIMEOUT_SECONDS = 8;

/** Prints a line `<process>/<path>:<number>` for each list, or `more` if that takes too much processor time. */
const script = [
  `cd /proc && (ulimit -S -t ${COUNT_SECONDS}; exec nice timeout ${COUNT_TIMEOUT_SECONDS} grep --line-buffered -cHs "" $*)`,
  "[ $? -lt 128 ] || echo more",
].join("\n");

/**
 * Counts a sandbox's mappings of memory. Another program reads the lists, because a sandbox can have millions of mappings. Counts
 * memory that several processes share (CLONE_VM) for each of them.
 */
export async function countMappings({ groups }: Pick<EngineSandbox, "groups">): Promise<number> {
  const endTurn = await counts.take(TURN_MS);
  try {
    const processes = endTurn === undefined ? [] : await membersOf(groups[0] ?? "");
    const ofProcesses = await countLines(processes.map((pid) => `${pid}/maps`));
    // A process whose first thread has ended seems to have no mappings. All threads have the same.
    const ended = processes.filter((pid) => !ofProcesses.get(String(pid)));
    const ofThreads = await countLines(ended.map((pid) => `${pid}/task/*/maps`));
    return sum([...ofProcesses.values(), ...ofThreads.values()]);
  } finally {
    endTurn?.();
  }
}

/** The most lines of a list of each process. */
async function countLines(lists: string[]): Promise<Map<string, number>> {
  const text = lists.length === 0 ? "" : await runHost("sh", ["-c", script, "sh", ...lists]).catch(() => "");
  if (text.endsWith("more\n")) return new Map([["", VERY_MANY]]);
  const most = new Map<string, number>();
  for (const [, process = "", number] of text.matchAll(/^(\d+)\/.*:(\d+)$/gm))
    most.set(process, Math.max(most.get(process) ?? 0, Number(number)));
  return most;
}

/**
 * The number of the machine's kernel objects of a kind. Some kernels count other small objects with them.
 * @param cache the name of their cache in /proc/slabinfo
 * @returns undefined if only root may know it
 */
export function kernelObjects(cache: string): number | undefined {
  const text = readText(`/sys/kernel/slab/${cache}/total_objects`);
  return text === "" ? undefined : Number.parseInt(text, 10);
}
