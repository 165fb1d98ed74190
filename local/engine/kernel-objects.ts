/** How many kernel objects of a kind the machine has, and how many mappings of memory and pipes each sandbox has. */
import { arch } from "node:process";
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

/** The number of kcmp(2), which compares resources of two threads. */
const compareCall: Record<string, number> = { x64: 312, arm64: 272 };
/**
 * Finds the places in /proc of the tables of descriptors of processes: for each table, a thread that has it. The number 2 is KCMP_FILES.
 * If the kernel does not compare threads, finds the table of each process's first thread.
 */
const findTables = `
my ($compare, @processes) = @ARGV;
my @tables;
for my $process (@processes) {
  my @different;
  for my $thread (map { m{([0-9]+)$} } glob "/proc/$process/task/*") {
    next if grep { my $other = $_; syscall($compare + 0, $thread + 0, $other + 0, 2, 0, 0) <= 0 } @different;
    push @different, $thread;
    push @tables, "/proc/$process/task/$thread";
  }
}
`;
const printTables = `${findTables}print "$_\\n" for @tables;`;

/**
 * Prints how many different pipes are open, and how many files wait in sockets. Prints VERY_MANY if that takes too much processor time:
 * a sandbox can have 500,000 descriptors.
 */
const printPipes = `${findTables}
my ($read, $waiting, %pipes) = (0, 0);
for my $table (@tables) {
  opendir(my $descriptors, "$table/fd") or next;
  while (defined(my $name = readdir $descriptors)) {
    my $file = readlink("$table/fd/$name") // next;
    if (++$read % 1000 == 0) { my ($user, $system) = times; if ($user + $system > ${COUNT_SECONDS}) { print "${VERY_MANY} 0"; exit } }
    if ($file =~ /^pipe:/) { $pipes{$file} = 1 }
    elsif ($file =~ /^socket:/ && open(my $state, "<", "$table/fdinfo/$name")) { /^scm_fds:\\s*(\\d+)/ and $waiting += $1 while <$state> }
  }
}
print scalar(keys %pipes), " $waiting";
`;

async function runPerl(program: string, processes: readonly number[]): Promise<string> {
  const call = compareCall[arch];
  if (call === undefined || processes.length === 0) return "";
  return await runHost("nice", ["perl", "-e", program, ...[call, ...processes].map(String)]).catch(() => "");
}

/**
 * The places in /proc of the tables of descriptors of these processes. A thread can have a table of its own. If the first thread has
 * ended, the process itself seems to have no descriptors.
 */
export async function descriptorTables(processes: readonly number[]): Promise<string[]> {
  const found = (await runPerl(printTables, processes)).split("\n").filter(Boolean);
  return found.length === 0 ? processes.map((pid) => `/proc/${pid}`) : found;
}

/**
 * How many files may wait in the sockets of a sandbox (SCM_RIGHTS). The engine does not see whether they are pipes, locked, or sockets in
 * which further files wait. So with more than this, the sandbox counts as one with very many.
 */
const MAX_WAITING = 250;

/** Counts pipes, and files that wait in sockets, because each can be a pipe. */
export async function countPipes(
  processes: readonly number[],
): Promise<{ pipes: number; hasManyWaiting: boolean }> {
  const text = await runPerl(printPipes, processes);
  const [pipes = 0, waiting = 0] = text.split(" ").map(Number);
  return { pipes: pipes + waiting, hasManyWaiting: waiting > MAX_WAITING };
}

/** The most bytes of a pipe. Linux allows at most 2 GiB. */
const MAX_PIPE_BYTES = Math.min(readSetting("fs/pipe-max-size"), 2 ** 31);

/** An upper bound of the memory in a sandbox's pipes that counts in no control group. */
export async function boundPipeMemory({ groups }: Pick<EngineSandbox, "groups">): Promise<number> {
  const { pipes, hasManyWaiting } = await countPipes(await membersOf(groups[0] ?? ""));
  return hasManyWaiting ? VERY_MANY : pipes * MAX_PIPE_BYTES;
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
