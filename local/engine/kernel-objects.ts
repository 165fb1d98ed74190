/** How many kernel objects of a kind the machine has, and how many of them each sandbox holds. */
import { arch } from "node:process";
import { Turns } from "../../src/shared/turns.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { readText } from "./host-files.ts";
import { runHost } from "./host-programs.ts";
import { membersOf } from "./limits.ts";

/**
 * How much processor time it may take to count the objects of a sandbox, in seconds. A sandbox that needs more has very many objects or
 * descriptors, and is the largest. Measured: 0.06 s for 50,000 watches, 3 s for a million, 2.5 s for 510,000 descriptors.
 */
const COUNT_SECONDS = 5;
const LARGEST = 1e12;
/** How many sandboxes are counted at once, and how long a sandbox waits for its turn, in milliseconds. */
const counts = new Turns(2);
const TURN_MS = 60_000;

/** The number of kcmp(2). */
const kcmp = { x64: "312", arm64: "272" }[String(arch)];

/**
 * Counts each table of descriptors, memory and epoll once, although several processes and threads may share it: kcmp sorts them.
 * It reads each thread, because a process whose first thread has ended seems to have no descriptors and no memory.
 */
const program = `
use strict;
my ($kcmp, $kind, @processes) = @ARGV;
my ($file, $memory, $table) = (0, 1, 2);
my ($count, @seen) = (0, [], [], []);
$SIG{XCPU} = sub { print ${LARGEST}; exit };
$SIG{TERM} = sub { print $count; exit };
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
my %count_of = (mappings => \\&count_mappings, watches => \\&count_watches);
for my $process (compare($$, $$, $memory, 0, 0) == 0 ? @processes : ()) {
  opendir(my $tasks, "/proc/$process/task") or next;
  for my $task (grep { /^\\d+$/ } readdir $tasks) {
    $count_of{$kind}->($task);
  }
}
print $count;
`;

/**
 * Counts a sandbox's watches of epoll or mappings of memory; 0 if the kernel has no kcmp. Does not find watches of a descriptor that is
 * in transit over a socket, or that was closed while a thread waits for it.
 *
 * Another program reads the files, because a sandbox can have millions of descriptors and watches. At the first read of a list of
 * watches, the kernel makes the list twice, and no other program runs on the processor meanwhile: with 50,000 watches 30 ms,
 * with 300,000 0.2 s, with a million 1 s.
 */
export async function countHeld(
  { groups }: Pick<EngineSandbox, "groups">,
  kind: "watches" | "mappings",
): Promise<number> {
  const endTurn = await counts.take(TURN_MS);
  try {
    const processes = await membersOf(groups[0] ?? "");
    if (!endTurn || processes.length === 0 || kcmp === undefined) return 0;
    const script = `ulimit -S -t ${COUNT_SECONDS}; exec perl -e "$@"`;
    const words = [program, kcmp, kind, ...processes].map(String);
    return await runHost("sh", ["-c", script, "sh", ...words]).then(Number, () => 0);
  } finally {
    endTurn?.();
  }
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
