/** How many kernel objects of a kind the machine has, and how many mappings of memory and pipes each sandbox has. */
import { join } from "node:path";
import { arch } from "node:process";
import { waitAtMost } from "../../src/shared/timers.ts";
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

/** The most bytes of a pipe. Linux allows at most 2 GiB. */
const MAX_PIPE_BYTES = Math.min(readSetting("fs/pipe-max-size"), 2 ** 31);

/** The number of kcmp(2), which compares resources of two threads. */
const compareCall: Record<string, number> = { x64: 312, arm64: 272 };
/**
 * Visits the tables of descriptors of a group's processes: for each table, the place in /proc of a thread that has it. The number 2 is
 * KCMP_FILES, and 3 is ESRCH, for a thread that has ended. If the kernel does not compare threads, visits the table of each process's first
 * thread. Ends early if that takes too much time.
 */
const visitTables = `
my ($compare, $list) = @ARGV;
sub isLate { my ($user, $system) = times; return $user + $system > ${COUNT_SECONDS} || time - $^T >= ${COUNT_TIMEOUT_SECONDS} }
sub isSame { my $order = syscall($compare + 0, $_[0] + 0, $_[1] + 0, 2, 0, 0); return $order == 0 || ($order < 0 && $! != 3) }
open(my $processes, "<", $list) or exit;
for my $process (map { 0 + $_ } <$processes>) {
  my @different;
  for my $thread (map { m{([0-9]+)$} } glob "/proc/$process/task/*") {
    next if isLate() || grep { isSame($thread, $_) } @different;
    push @different, $thread;
    visit("/proc/$process/task/$thread");
  }
}
`;
const printTables = `sub visit { print "$_[0]\\n" } ${visitTables}`;

/**
 * Prints how many bytes fit into the pipes that are open, and how many files wait in sockets. Prints VERY_MANY if that takes too much time:
 * a sandbox can have 500,000 descriptors. Opens a pipe for a moment to ask for its size (F_GETPIPE_SZ, 1032).
 */
const printPipes = `
use Fcntl;
my ($bytes, $waiting, %seen) = (0, 0);
sub visit {
  my ($table) = @_;
  opendir(my $descriptors, "$table/fd") or return;
  while (defined(my $name = readdir $descriptors)) {
    return if isLate();
    my ($device, $inode, $mode) = stat "$table/fd/$name" or next;
    my $type = $mode & 0170000;
    next if ($type != 0010000 && $type != 0140000) || $seen{"$device:$inode"}++;
    if ($type == 0140000) {
      open(my $state, "<", "$table/fdinfo/$name") or next;
      while (<$state>) { $waiting += $1 if /^scm_fds:\\s*(\\d+)/ }
    } else {
      my $isOpen = sysopen(my $pipe, "$table/fd/$name", O_RDONLY | O_NONBLOCK | O_NOCTTY);
      $bytes += ($isOpen && fcntl($pipe, 1032, 0)) || ${MAX_PIPE_BYTES};
    }
  }
}
${visitTables}
$bytes = $waiting = ${VERY_MANY} if isLate();
print "$bytes $waiting";
`;
const LATE = `${VERY_MANY} ${VERY_MANY}`;

/**
 * A program that waits for a locked pipe cannot be killed. So the engine waits for it only a little longer than for one that limits its
 * time itself, in milliseconds.
 */
const PERL_MS = 1000 * (COUNT_TIMEOUT_SECONDS + 1);

/** @returns what it printed; `late` if it did not end in time; "" if it failed */
async function runPerl(program: string, group: string, late = ""): Promise<string> {
  const call = compareCall[arch];
  if (call === undefined || group === "") return "";
  const args = ["perl", "-e", program, String(call), join(group, "cgroup.procs")];
  const printed = runHost("nice", args).catch(() => "");
  return (await waitAtMost(PERL_MS, printed)) ?? late;
}

/**
 * The places in /proc of the tables of descriptors of a group's processes. A thread can have a table of its own. If the first thread has
 * ended, the process itself seems to have no descriptors.
 */
export async function descriptorTables(group: string): Promise<string[]> {
  const found = (await runPerl(printTables, group)).split("\n").filter(Boolean);
  return found.length === 0 ? (await membersOf(group)).map((pid) => `/proc/${pid}`) : found;
}

/**
 * How many files may wait in the sockets of a sandbox (SCM_RIGHTS) before it counts as one with very many locks. The engine does not see
 * whether they are locked.
 */
const MAX_WAITING = 250;

/** Counts how many bytes fit into the pipes of a group's processes, and how many files wait in their sockets. */
async function countPipes(group: string): Promise<{ bytes: number; waiting: number }> {
  const [bytes = 0, waiting = 0] = (await runPerl(printPipes, group, LATE)).split(" ").map(Number);
  return { bytes, waiting };
}

export async function hasManyWaiting(group: string): Promise<boolean> {
  return (await countPipes(group)).waiting > MAX_WAITING;
}

/**
 * For each byte of the kernel's memory that a control group counts for pipes, at most this many bytes in them count in none. For a pipe of
 * 1 MiB, it counts a list of 16 KiB.
 */
const UNCOUNTED_RATIO = 64;

/** How many bytes fit into the open pipes of a sandbox. */
export async function pipeBytesOf({ groups: [group = ""] }: Pick<EngineSandbox, "groups">): Promise<number> {
  return (await countPipes(group)).bytes;
}

/**
 * An upper bound of the memory in a sandbox's pipes that counts in no control group. A file that waits in a socket can be a pipe, or a
 * socket in which thousands of pipes wait.
 * @param counted the kernel memory that a control group counts for the sandbox's work; undefined if unknown
 */
export async function boundPipeMemory(
  { groups: [group = ""] }: Pick<EngineSandbox, "groups">,
  counted: number | undefined,
): Promise<number> {
  const { bytes, waiting } = await countPipes(group);
  if (waiting === 0) return bytes;
  if (counted !== undefined) return bytes + counted * UNCOUNTED_RATIO;
  return waiting > MAX_WAITING ? VERY_MANY : bytes + waiting * MAX_PIPE_BYTES;
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
