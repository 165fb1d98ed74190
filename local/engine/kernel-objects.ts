/** How many kernel objects of a kind the machine has, and how many mappings of memory and pipes each sandbox has. */
import { Turns } from "../../src/shared/turns.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { readText } from "./host-files.ts";
import { runHost } from "./host-programs.ts";
import { membersOf, readSetting } from "./limits.ts";
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
 * A file in transit (SCM_RIGHTS) may be a socket with further files in transit. So a sandbox with more files in transit counts as one with
 * very many.
 */
const MAX_IN_TRANSIT = 250;

/** The most bytes of a pipe. Linux allows at most 2 GiB. */
const MAX_PIPE_BYTES = Math.min(readSetting("fs/pipe-max-size"), 2 ** 31);

const limited = (command: string) =>
  `(ulimit -S -t ${COUNT_SECONDS}; exec nice timeout ${COUNT_TIMEOUT_SECONDS} ${command})`;
/** Prints how many different pipes are open. */
const pipesScript = `cd /proc && ${limited('ls -lU "$@"')} 2>/dev/null | grep -o "pipe:.*" | sort -u | wc -l`;
/** Prints a line `scm_fds: <number>` for each socket with files in transit. */
const transitScript = [
  `cd /proc && { ${limited('grep -rhs "^scm_fds:.*[1-9]" "$@"')}`,
  `[ $? -lt 128 ] || echo "scm_fds: ${VERY_MANY}"; } | head -n 1000`,
].join("\n");

/**
 * An upper bound of the memory in a sandbox's pipes that counts in no control group. Other programs read the lists, because a sandbox
 * can have 500,000 descriptors.
 */
export async function boundPipeMemory({ groups }: Pick<EngineSandbox, "groups">): Promise<number> {
  const processes = await membersOf(groups[0] ?? "");
  const print = async (command: string, list: string) => {
    const lists = processes.map((pid) => `${pid}/${list}`);
    return lists.length === 0 ? "" : await runHost("sh", ["-c", command, "sh", ...lists]).catch(() => "");
  };
  const [pipes, transit] = await Promise.all([print(pipesScript, "fd"), print(transitScript, "fdinfo")]);
  const inTransit = sum(Array.from(transit.matchAll(/\d+/g), ([number]) => Number(number)));
  if (inTransit > MAX_IN_TRANSIT) return VERY_MANY;
  return (Number(pipes) + inTransit) * MAX_PIPE_BYTES;
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
