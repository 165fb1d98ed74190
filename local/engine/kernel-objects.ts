/** Counts objects of the kernel: those of a kind on the machine, and those of the processes of sandboxes. */
import { join } from "node:path";
import { arch } from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import { procStat } from "../../container/sandboxd/proc-stat.ts";
import { waitAtMost } from "../../src/shared/timers.ts";
import { Turns } from "../../src/shared/turns.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { whileFrozen } from "./freeze.ts";
import { readText } from "./host-files.ts";
import { runFile, systemPath } from "./host-programs.ts";
import { readSetting } from "./limits.ts";

/** The objects of a sandbox's processes. */
export interface KernelObjects {
  /** Mappings of memory. Memory that several processes share (CLONE_VM) counts for each of them. */
  mappings: number;
  /** How many bytes fit into the open pipes. */
  pipeBytes: number;
  /**
   * How many files wait in sockets (SCM_RIGHTS) and are not counted here, for example in connections that no program has accepted. They
   * can be pipes, locked files, or sockets in which thousands of files wait.
   */
  waiting: number;
  /**
   * Locks of open files, counted where they are kept. A lock remains after the process that set it has ended, while another process has
   * the open file (flock), or shares the table of descriptors (CLONE_FILES).
   */
  locks: number;
  /**
   * The watches of files by epoll without the first two of each file, or a fiftieth of all watches if that is more. The two ends of a
   * pipe count as one file, and so do all files of eventfd, timerfd and signalfd: they have one inode.
   */
  watches: number;
  /** Open directories. A copy of a descriptor counts again. */
  directories: number;
}

/** How much processor time the count of a sandbox may take, in seconds. A sandbox that needs more has very many objects. */
const COUNT_SECONDS = 5;
/** After this time less processor time is enough, in seconds, because several principals can make counts slow at once. */
const SLOW_SECONDS = 8;
const SLOW_COUNT_SECONDS = 2;
export const VERY_MANY = 1e12;
/**
 * How many watches of different files count as one more watch of the same file. An event visits all watches of its file, and a packet to
 * 190 sockets those of all these files. But a read of /proc/PID/fdinfo visits all watches of an epoll: 960,000 stopped a processor for
 * 0.5 s.
 */
const WATCHES_OF_OTHERS = 50;
/** The most files that programs of a sandbox may watch by epoll. The count keeps each of them in memory. */
const MAX_WATCHED = 200_000;

/** The most bytes of a pipe. Linux allows at most 2 GiB. */
const MAX_PIPE_BYTES = Math.min(readSetting("fs/pipe-max-size"), 2 ** 31);

/**
 * The number of kcmp(2), which compares resources of two threads. Without it, only the descriptors of first threads count, and only one
 * epoll of those with the same number.
 */
const compareCall: Record<string, number> = { x64: 312, arm64: 272 };

/** The number of recvmsg(2). Without it, files that wait in sockets only count in `waiting`. */
const receiveCall: Record<string, number> = { x64: 47, arm64: 212 };
const [PIDFD_THREAD, MSG_PEEK, MSG_DONTWAIT, SO_PEEK_OFF] = [0o200, 0x2, 0x40, 42];
/** More than the bytes in a socket (net.core.wmem_default). A message that was read in two parts would count twice. */
const MESSAGE_BYTES = 1024 * 1024;
/** In how many sockets, each in a message of the one before, the program looks for files. Since Linux 6.10, 60,000 are possible. */
const MAX_DEPTH = 4;

/**
 * Prints the numbers of `KernelObjects` for a group's processes. The kernel counts nothing for a first thread that has ended, and a
 * thread can have descriptors of its own. So this program visits each different table of descriptors, and each different
 * epoll, because a forked process has the same one. The number 0 is KCMP_FILE, 2 is KCMP_FILES, and 3 is ESRCH, for a thread that has
 * ended. Opens a pipe for a moment to ask for its size (F_GETPIPE_SZ, 1032). A sandbox can have 500,000 descriptors and millions of
 * mappings and watches, and the kernel goes through all locks of a file for each of its descriptors.
 *
 * Of files that wait in a socket, the program takes copies for a moment and visits them, too. It reads the messages without removing them,
 * one after another (SO_PEEK_OFF), from a copy of the socket: 434 is pidfd_open(2), 438 is pidfd_getfd(2). They find no socket of a further
 * thread that has descriptors of its own before Linux 6.9, and no connection that no program has accepted. A message can also have a
 * descriptor of its sender (SO_PASSPIDFD, type 4). The program closes it, too: without descriptors of its own, it would see no more files.
 */
const program = `
use Fcntl;
my ($compare, $receive, $list) = @ARGV;
my ($mappings, $bytes, $waiting, $locks, $watches, $repeated, $directories, %seen, %watched, %polls) = (0) x 7;
sub isLate {
  my ($user, $system) = times;
  return $user + $system > (time - $^T < ${SLOW_SECONDS} ? ${COUNT_SECONDS} : ${SLOW_COUNT_SECONDS}) || keys %watched > ${MAX_WATCHED};
}
sub isSame { my $order = syscall($compare + 0, map { 0 + $_ } @_); return $order == 0 || ($order < 0 && $! != 3) }
sub countLines {
  my $count = 0;
  open(my $file, "<", $_[0]) or return 0;
  while (!isLate() && sysread($file, my $lines, 65536)) { $count += $lines =~ tr/\\n// }
  return $count;
}
sub zeros { my $bytes = ""; vec($bytes, $_[0] - 1, 8) = 0; return $bytes }
my ($text, $control) = (zeros(${MESSAGE_BYTES}), zeros(4096));
sub copyOf {
  my ($thread, $name) = map { 0 + $_ } @_;
  my ($process, $copy);
  my $number = syscall(434, $thread, ${PIDFD_THREAD});
  $number = syscall(434, $thread, 0) if $number < 0;
  open($process, "<&=", $number) or return;
  open($copy, "+<&=", syscall(438, $number, $name, 0)) or return;
  return $copy;
}
sub unseenIn {
  my ($count, $socket) = @_;
  local $depth = $depth + 1;
  my $begin = $depth <= ${MAX_DEPTH} && $socket && getsockopt($socket, 1, ${SO_PEEK_OFF}) or return $count;
  setsockopt($socket, 1, ${SO_PEEK_OFF}, 0);
  my $seen = 0;
  while (!isLate() && $seen <= $count) {
    my $part = pack "PQ", $text, ${MESSAGE_BYTES};
    my $message = pack "QQPQPQQ", 0, 0, $part, 1, $control, 4096, 0;
    my $read = syscall($receive + 0, fileno $socket, $message, ${MSG_PEEK | MSG_DONTWAIT});
    my ($length, @files, @copies) = unpack "x40Q", $message;
    last if $read < 0 || $read + $length == 0;
    for (my ($at, $size) = (0, 0); $at + 16 <= $length; $at += ($size + 7) & ~7) {
      ($size, my ($level, $type)) = unpack "x\${at}QLL", $control;
      next unless $level == 1 && ($type == 1 || $type == 4);
      my @numbers = unpack "l*", substr $control, $at + 16, $size - 16;
      push @copies, map { open(my $copy, "<&=", $_); $copy } @numbers;
      push @files, @numbers if $type == 1;
    }
    $seen += grep { !isLate() && visitFile($$, "/proc/self", $_) } @files;
  }
  setsockopt($socket, 1, ${SO_PEEK_OFF}, unpack "l", $begin);
  return $seen == $count ? 0 : $count;
}
sub visitFile {
  my ($thread, $table, $name) = @_;
  my ($device, $inode, $mode) = stat "$table/fd/$name" or return;
  $directories++ if ($mode & 0170000) == 0040000;
  my $isFirst = !$seen{"$device:$inode"}++;
  open(my $state, "<", "$table/fdinfo/$name") or return;
  my $isPoll;
  while (<$state>) {
    last if $. % 1000 == 0 && isLate();
    $locks++ if /^lock:/;
    $waiting += unseenIn($1, copyOf($thread, $name)) if $isFirst && /^scm_fds:\\s*([1-9]\\d*)/;
    next unless /^tfd:.* ino:(\\S+) +sdev:(\\S+)/;
    my $file = "$1:$2";
    last if !$isPoll++ && grep { isSame($thread, $_, 0, $name, $name) } @{$polls{$name}};
    $watches++;
    $repeated++ if ++$watched{$file} > 2;
  }
  push @{$polls{$name}}, $thread if $isPoll && $thread != $$;
  return 1 unless $isFirst && ($mode & 0170000) == 0010000;
  my $isOpen = sysopen(my $pipe, "$table/fd/$name", O_RDONLY | O_NONBLOCK | O_NOCTTY);
  $bytes += ($isOpen && fcntl($pipe, 1032, 0)) || ${MAX_PIPE_BYTES};
}
sub visit {
  my ($thread, $table) = @_;
  opendir(my $descriptors, "$table/fd") or return;
  while (!isLate() && defined(my $name = readdir $descriptors)) { visitFile($thread, $table, $name) }
}
open(my $processes, "<", $list) or exit;
for my $process (map { 0 + $_ } <$processes>) {
  my ($ofProcess, @different) = (0);
  for my $thread (map { m{([0-9]+)$} } glob "/proc/$process/task/*") {
    $ofProcess ||= countLines("/proc/$process/task/$thread/maps");
    next if isLate() || grep { isSame($thread, $_, 2, 0, 0) } @different;
    push @different, $thread;
    visit($thread, "/proc/$process/task/$thread");
  }
  $mappings += $ofProcess;
}
$watches = int($watches / ${WATCHES_OF_OTHERS});
$watches = $repeated if $repeated > $watches;
$mappings = $bytes = $waiting = $locks = $watches = $directories = ${VERY_MANY} if isLate();
print "$mappings $bytes $waiting $locks $watches $directories";
`;
const LATE = Array.from({ length: 6 }, () => VERY_MANY).join(" ");

/** How often to look whether a program that counts uses a processor or waits for one, in milliseconds. */
const LOOK_MS = 500;
/**
 * In how many looks the program may wait for anything else than a processor, for example for a locked pipe. Then it cannot be killed, and
 * its sandbox counts as one with very many objects. If it waits for a processor, other programs are the reason.
 */
const MAX_WAITING_LOOKS = 16;
/** After so many looks the engine gives up the count, and finds no objects, because the sandbox is stopped meanwhile. */
const MAX_LOOKS = 60;

/**
 * Runs a program that prints counts.
 * @returns an empty text if it got too little processor time
 * @throws Error if it failed
 */
async function outputOf(file: string, args: string[]): Promise<string> {
  const running = runFile(file, args, { cwd: "/", env: { PATH: systemPath() } });
  const printed = running.then(({ stdout }) => stdout);
  let [looks, waiting] = [0, 0];
  for (; looks < MAX_LOOKS && waiting < MAX_WAITING_LOOKS; looks += 1) {
    const output = await waitAtMost(LOOK_MS, printed);
    if (output !== undefined) return output;
    if (procStat(running.child.pid ?? 0)?.[0] !== "R") waiting += 1;
  }
  printed.catch(() => undefined);
  running.child.kill("SIGKILL");
  return waiting < MAX_WAITING_LOOKS ? "" : LATE;
}

/**
 * The niceness of the programs that count a principal's sandboxes, so that all together get about as much processor time as one thread of
 * the server: the kernel gives a program 1.25 times as much for each level less. With the same niceness for all, a principal with eight
 * sandboxes stopped the programs of a neighbour for up to 6 s.
 */
const nicenessFor = (programs: number) => Math.round(Math.log(programs) / Math.log(1.25));

function objectsIn(counts: string): KernelObjects {
  const [mappings = 0, pipeBytes = 0, waiting = 0, locks = 0, watches = 0, directories = 0] = counts
    .split(" ")
    .map(Number);
  return { mappings, pipeBytes, waiting, locks, watches, directories };
}

async function countIn(group: string, niceness: number): Promise<KernelObjects> {
  const calls = [compareCall[arch] ?? -1, receiveCall[arch] ?? -1].map(String);
  const args = [...calls, join(group, "cgroup.procs")];
  // The programs for all sandboxes run at once, because a sandbox with few objects must not delay the count of one with many.
  const command = ["-n", String(niceness), "perl", "-e", program, ...args];
  const counts = group === "" ? "" : await outputOf("nice", command).catch(() => "");
  return objectsIn(counts);
}

/** One count at a time stops programs, so that none lets them go on during another. How long to wait for the others, in milliseconds. */
const turn = new Turns(1);
const TURN_MS = 60_000;

/**
 * Counts the objects of sandboxes. Stops all sandboxes of a principal until they are counted: their programs could pass descriptors on to
 * new processes, or take more memory while the count of another sandbox lasts.
 */
async function countObjects(sandboxes: EngineSandbox[]): Promise<Map<EngineSandbox, KernelObjects>> {
  const counts = new Map<EngineSandbox, KernelObjects>();
  const endTurn = await turn.take(TURN_MS);
  if (endTurn === undefined) return counts;
  const count = async (sandbox: EngineSandbox, niceness: number) =>
    void counts.set(sandbox, await countIn(sandbox.groups[0] ?? "", niceness));
  const ofPrincipals = Map.groupBy(sandboxes, (sandbox) => sandbox.principal ?? sandbox);
  const countings = Array.from(ofPrincipals.values(), (own) =>
    whileFrozen(
      own.flatMap(({ groups }) => groups),
      async () => await Promise.all(own.map((sandbox) => count(sandbox, nicenessFor(own.length)))),
    ),
  );
  await Promise.all(countings).finally(endTurn);
  return counts;
}

export type ObjectsOf = (sandbox: EngineSandbox) => Promise<KernelObjects>;

/** Returns a function that counts the objects of all these sandboxes at its first call. */
export function lazyCount(sandboxes: () => EngineSandbox[]): ObjectsOf {
  let counts: ReturnType<typeof countObjects> | undefined;
  return async (sandbox) => {
    const counted = await (counts ??= countObjects(sandboxes()));
    return counted.get(sandbox) ?? objectsIn("");
  };
}

/**
 * How many files may wait in the sockets of a sandbox before it counts as one with very many locks. The engine does not see whether they
 * are locked.
 */
const MAX_WAITING = 250;

/** An upper bound of a sandbox's file locks. */
export const boundLocks = ({ locks, waiting }: KernelObjects): number =>
  waiting > MAX_WAITING ? VERY_MANY : locks;

/**
 * For each byte of the kernel's memory that a control group counts for pipes, at most this many bytes in them count in none. For a pipe of
 * 1 MiB, it counts a list of 16 KiB.
 */
const UNCOUNTED_RATIO = 64;

/**
 * An upper bound of the memory in a sandbox's pipes that counts in no control group.
 * @param counted the kernel memory that a control group counts for the sandbox's work; undefined if unknown
 */
export function boundPipeMemory({ pipeBytes, waiting }: KernelObjects, counted: number | undefined): number {
  if (waiting === 0) return pipeBytes;
  if (counted !== undefined) return pipeBytes + counted * UNCOUNTED_RATIO;
  return waiting > MAX_WAITING ? VERY_MANY : pipeBytes + waiting * MAX_PIPE_BYTES;
}

/** How often a sandbox is counted while files wait in its sockets each time, and the pause between two counts, in milliseconds. */
const WAITING_COUNTS = 5;
const BETWEEN_COUNTS_MS = 100;

/**
 * An upper bound of a sandbox's repeated watches. A descriptor of epoll with thousands of watches can wait in a socket. But files in
 * connections that a server is about to accept wait only for moments, so a sandbox with files that wait is counted again.
 */
export async function boundWatches(sandbox: EngineSandbox, objectsOf: ObjectsOf): Promise<number> {
  let objects = await objectsOf(sandbox);
  for (let counts = 1; objects.waiting > 0 && counts < WAITING_COUNTS; counts += 1) {
    await pause(BETWEEN_COUNTS_MS);
    objects = await lazyCount(() => [sandbox])(sandbox);
  }
  return objects.waiting > 0 ? VERY_MANY : objects.watches;
}

/** The part of its time in which the engine may read a number of kernel objects. */
const READ_SHARE = 1 / 20;

/**
 * Returns a function that reads the number of the machine's kernel objects of a kind. Some kernels count other small objects with them.
 * The kernel takes 0.2 ms for 1,000 pages with free places, which programs can make. Then the function often returns its last result.
 * @param cache the name of their cache in /proc/slabinfo
 * @returns undefined if only root may know it
 */
export function kernelObjects(cache: string): () => number | undefined {
  let last: number | undefined;
  let nextAt = 0;
  return () => {
    const begin = performance.now();
    if (begin < nextAt) return last;
    const text = readText(`/sys/kernel/slab/${cache}/objects`);
    last = text === "" ? undefined : Number.parseInt(text, 10);
    const end = performance.now();
    nextAt = end + (end - begin) / READ_SHARE;
    return last;
  };
}
