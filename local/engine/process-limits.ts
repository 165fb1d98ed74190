/** How many processes and threads all sandboxes may have together. */
import { join } from "node:path";
import { loadText } from "./host-files.ts";

/** Sandboxes leave a quarter of the machine's processes to other programs. */
const PROCESSES_SHARE = 3 / 4;

/**
 * How many processes and threads all sandboxes may have together. A process can occupy three of the machine's process numbers: its own,
 * its group's and its session's, because these stay in use when the processes that had them have ended.
 */
export function processesOfAll(numbers: number, threads: number): number {
  return Math.floor(Math.min(numbers / 3, threads) * PROCESSES_SHARE);
}

/**
 * The limit for all sandboxes, which is lower if a control group around theirs has a limit, such as a container's.
 * @param parents the groups in which the engine makes its groups
 */
export async function processesWithin(
  parents: readonly { path: string }[],
  allProcesses: number,
): Promise<number> {
  const texts = await Promise.all(parents.map(({ path }) => loadText(join(path, "pids.max"))));
  const limits = texts.filter((text) => /^\d+\n$/.test(text)).map(Number);
  return Math.min(allProcesses, ...limits.map((limit) => Math.floor(limit * PROCESSES_SHARE)));
}
