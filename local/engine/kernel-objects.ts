/** How many kernel objects of a kind the machine has, and how many of them each sandbox holds. */
import { existsSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import { arch } from "node:process";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { readText } from "./host-files.ts";
import { runHost } from "./host-programs.ts";
import { countOf, dropCaches, kernelMemoryOf, membersOf } from "./limits.ts";

/** Kernel memory of a sandbox that no other number explains. */
export const IDLE_BYTES = 8 * 1024 * 1024;
/**
 * The kernel's memory for the stack and the other objects of a thread, and for a process beyond its first thread, without its page
 * tables. Measured with sleeping threads, and processes of bash.
 */
const STACK_BYTES = 16 * 1024;
const THREAD_BYTES = 6 * 1024;
const PROCESS_BYTES = 21 * 1024;

/**
 * How much processor time it may take to count the objects of a sandbox, in seconds. Meanwhile, others may be added. Measured: 2.5 s
 * for 510,000 descriptors, 3 s for a million watches, 0.1 s for the bytes of 300 processes.
 */
const COUNT_SECONDS = 2;

/** The number of kcmp(2). */
const kcmp = { x64: "312", arm64: "272" }[String(arch)];

/**
 * Counts each table of descriptors, memory and epoll once, although several processes and threads may share it: kcmp sorts them.
 * It reads each thread, because a process whose first thread has ended seems to have no descriptors and no memory.
 */
const program = `
use strict;
my ($kcmp, $kind, $thread_bytes, @processes) = @ARGV;
my ($file, $memory, $table) = (0, 1, 2);
my ($count, @seen) = (0, [], [], []);
$SIG{XCPU} = sub { print $count; exit };
sub compare { return syscall($kcmp + 0, map { $_ + 0 } @_) }
sub is_new {
  my ($type, $task, $number) = @_;
  my $list = $seen[$type];
  my ($low, $high) = (0, scalar @$list);
  while ($low < $high) {
    my $middle = int(($low + $high) / 2);
    my $order = compare($task, $list->[$middle][0], $type, $number, $list->[$middle][1]);
    return 0 if $order == 0;
    if ($order == 1) { $high = $middle }
    elsif ($order > 0) { $low = $middle + 1 }
    # One of the two has ended.
    elsif (compare($task, $task, $type, $number, $number) != 0) { return 0 }
    else { splice @$list, $middle, 1; $high -= 1 }
  }
  splice @$list, $low, 0, [$task, $number];
  return 1;
}
sub count_bytes {
  my ($task) = @_;
  $count += $thread_bytes;
  is_new($memory, $task, 0) and open(my $status, "<", "/proc/$task/status") or return;
  $count += ${PROCESS_BYTES};
  $thread_bytes > ${STACK_BYTES} or return;
  while (<$status>) { $count += 1024 * $1 if /^VmPTE:\\s+(\\d+)/ }
}
sub count_mappings {
  my ($task) = @_;
  is_new($memory, $task, 0) and open(my $maps, "<", "/proc/$task/maps") or return;
  while (sysread $maps, my $text, 65536) { $count += ($text =~ tr/\\n//) }
}
sub count_watches {
  my ($task) = @_;
  is_new($table, $task, 0) and opendir(my $descriptors, "/proc/$task/fd") or return;
  while (defined(my $number = readdir $descriptors)) {
    my $target = readlink "/proc/$task/fd/$number";
    next unless defined $target and $target eq "anon_inode:[eventpoll]" and is_new($file, $task, $number);
    open(my $watches, "<", "/proc/$task/fdinfo/$number") or next;
    while (<$watches>) { $count += 1 if /^tfd:/ }
  }
}
my %count_of = (bytes => \\&count_bytes, mappings => \\&count_mappings, watches => \\&count_watches);
for my $process (compare($$, $$, $memory, 0, 0) == 0 ? @processes : ()) {
  opendir(my $tasks, "/proc/$process/task") or next;
  for my $task (grep { /^\\d+$/ } readdir $tasks) {
    $count_of{$kind}->($task);
  }
}
print $count;
`;

/**
 * Counts a sandbox's watches of epoll, mappings of memory, or the bytes of its threads and page tables. Counts fewer if that takes too
 * long, and 0 if the kernel has no kcmp. Does not find watches of a descriptor that is in transit over a socket, or that was closed
 * while a thread waits for it.
 *
 * Another program reads the files, because a sandbox can have millions of descriptors and watches. At the first read of a list of
 * watches, the kernel makes the list twice, and no other program runs on the processor meanwhile: with 50,000 watches 30 ms,
 * with 300,000 0.2 s, with a million 1 s.
 *
 * @returns if the program fails, a number for which no sandbox is ended
 */
export async function countHeld(
  { groups }: Pick<EngineSandbox, "groups">,
  kind: "watches" | "mappings" | "bytes",
): Promise<number> {
  const processes = await membersOf(groups[0] ?? "");
  if (processes.length === 0 || kcmp === undefined) return 0;
  // Version 2 of control groups counts stacks and page tables separately.
  const threadBytes = THREAD_BYTES + (isVersion1(groups) ? STACK_BYTES : 0);
  const script = `ulimit -S -t ${COUNT_SECONDS}; exec perl -e "$@"`;
  const words = [program, kcmp, kind, threadBytes, ...processes].map(String);
  const failed = kind === "bytes" ? Infinity : 0;
  return await runHost("sh", ["-c", script, "sh", ...words]).then(Number, () => failed);
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

const isVersion1 = (groups: readonly string[]) =>
  groups.some((group) => existsSync(join(group, "memory.force_empty")));

/** The kernel's memory for a file on a sandbox's disk. Version 2 of control groups counts its directory entry as reclaimable. */
function fileBytes(groups: readonly string[]): number {
  const caches = isVersion1(groups) ? ["shmem_inode_cache", "dentry"] : ["shmem_inode_cache"];
  return caches.reduce((sum, cache) => sum + Number(readText(`/sys/kernel/slab/${cache}/slab_size`)), 0);
}

/**
 * A sandbox's kernel memory beyond that of an idle sandbox, without its files, threads and page tables. Otherwise, a sandbox that made
 * or read many files, or has many processes, would seem to have many objects of another kind. Measured: Postgres with 100
 * connections has 32 MB of kernel memory, and 1.4 MB of them remain; of 14 programs of Node, or a Java program with 400 threads, none.
 */
export async function remainingKernelMemory({ pid, groups }: EngineSandbox): Promise<number> {
  const measure = async () => {
    const [bytes, programs, disk] = await Promise.all([
      countOf(groups, kernelMemoryOf),
      countHeld({ groups }, "bytes"),
      statfs(`/proc/${pid}/root`).catch(() => ({ files: 0, ffree: 0 })),
    ]);
    return Math.max(0, bytes - IDLE_BYTES - programs - (disk.files - disk.ffree) * fileBytes(groups));
  };
  if ((await measure()) === 0) return 0;
  await Promise.all(groups.map(dropCaches));
  return await measure();
}
