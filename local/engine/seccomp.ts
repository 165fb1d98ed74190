/**
 * A sandbox's system call filter. It allows the calls that programs need. It refuses the others with the error of a kernel that
 * does not have them (ENOSYS; ENOTTY for a command of ioctl). All sandboxes share the machine's kernel, and rarely used
 * interfaces have bugs, memory that counts in no control group, and locks of the whole machine. A filter cannot read flags in
 * memory, so it refuses clone3, openat2 and setxattrat. Programs then use the older calls.
 */
import { arch } from "node:process";
import {
  archCommands,
  fcntlCommands,
  ioctlRequests,
  membarrierCommands,
  memoryAdvice,
  personalities,
  prctlOptions,
  systemCalls,
} from "./allow-list.ts";
import {
  allow,
  ARCHITECTURE,
  argument,
  assemble,
  decideByValue,
  type Decision,
  ifAnyBit,
  ifAtLeast,
  ifBelow4GiB,
  ifEqual,
  ifNull,
  NUMBER,
  onlyValues,
  ignoreCall,
  refuse,
} from "./bpf.ts";
import { readText } from "./host-files.ts";
import { socketRules } from "./socket-filter.ts";

const EPERM = 1;
const ENOMEM = 12;
const EINVAL = 22;
const ENOTTY = 25;
const ENOSYS = 38;
const EOPNOTSUPP = 95;

const architectures = {
  x64: { audit: 0xc000003e, direct: 0o40000 },
  arm64: { audit: 0xc00000b7, direct: 0o200000 },
};

/**
 * Whether core dumps can leave the sandbox: through a pipe or a socket, or to a path. With fs.suid_dumpable=2, Linux writes the dump of a
 * program that has changed its user to this path of the machine, as the machine's root (core(5)).
 */
export function canDumpOutside(): boolean {
  return /^[|@/]/.test(readText("/proc/sys/kernel/core_pattern"));
}

interface FilterOptions {
  ids: number;
  /** Whether the sandbox can write to a host directory. Users of the host may run programs from that directory. */
  hasHostDirectory: boolean;
}

/** The compiled filter; undefined for an unknown architecture. */
export function seccompFilter(options: FilterOptions): Buffer | undefined {
  if (arch !== "x64" && arch !== "arm64") return undefined;
  const { audit, direct } = architectures[arch];
  const rules: Record<string, Decision> = {
    ...rulesOfCalls,
    ...socketRules(),
    ...rulesOfLimits(),
    ...rulesOfFiles(options, direct),
  };
  const calls = [...systemCalls(arch)].map(([name, number]) => [number, rules[name] ?? allow] as const);
  const refused = refuse(ENOSYS);
  return assemble(ifEqual(ARCHITECTURE, audit, decideByValue(NUMBER, calls, refused), refused));
}

const CLONE_NAMESPACES = 0x7e020000;
/**
 * Processes that share their signal handlers also share the list of those who wait for signals (signalfd). One signal to 400 such
 * processes visited 5,000 watches of epoll for each of them: 0.2 s. Threads also share it, but a signal to a process visits it once.
 */
const CLONE_SIGHAND = 0x800;
const CLONE_THREAD = 0x10000;

/**
 * All sandboxes and the host share the kernel's cache of common files. If a sandbox requests a page, the page arrives at the speed
 * of the sandbox's share of the disk. Every other program that needs this page waits too. Reading gigabytes ahead would delay all
 * starting programs. So hints to read ahead or to drop pages succeed without an effect.
 */
const MADVISE_WILLNEED = 3;
const FADVISE_WILLNEED = 3;
const FADVISE_DONTNEED = 4;

/** Flags of memfd_create, mmap and shmget for huge pages. The machine reserves these, and they count in no sandbox's limit. */
const MFD_HUGETLB = 0x4;
const MAP_HUGETLB = 0x40000;
const SHM_HUGETLB = 0o4000;
/** Turns a pipe into a queue of the kernel's notifications. */
const O_NOTIFICATION_PIPE = 0o200;

/**
 * The first process obeys a signal whose sender has no process id in the sandbox, because the platform must have sent it. But for
 * the calls with this rule, the kernel also reports no process id when the queue of signals is full. kill(2) needs no rule: the
 * queue always has room for its signals.
 */
const notToFirst = ifEqual(argument(0), 1, refuse(EPERM), allow);

/**
 * A sandbox's files have no extended attributes, as on a tmpfs before Linux 6.6:
 * - Access control lists are up to two of 64 KiB for each directory, in memory that counts in no control group.
 * - A file in memory can have 30 million user attributes. To list them takes 2 s, and no other program runs on that processor
 *   meanwhile.
 * A filter cannot read an attribute's name, so it refuses all. Programs that copy files continue without attributes.
 */
const noAttributes = refuse(EOPNOTSUPP);

/**
 * Two ways to request a signal at each event of a file. One write to a pipe can send millions of signals. Nearly all programs wait for
 * events instead. nginx requests such signals with FIOASYNC, and works without them.
 */
const FIOASYNC = 0x5452;
const O_ASYNC = 0o20000;

/**
 * For calls that go through all pages of a range of addresses, also those that are not in use. Meanwhile, no other program runs on
 * the processor, and SIGKILL does not end mincore(2): for 64 TiB it takes two minutes.
 */
const shortRange = (error: number) => ifBelow4GiB(argument(1), allow, refuse(error));
const MADV_GUARD_INSTALL = 102;
const MADV_GUARD_REMOVE = 103;

/**
 * The most files for poll and select: as many as a C program's fd_set has. For each, the kernel needs 64 bytes that no limit counts,
 * and an event of a file visits the entries of all programs that wait for it, with interrupts disabled.
 */
const MAX_POLLED = 1024;
const fewFiles = (index: number) => ifAtLeast(argument(index), MAX_POLLED + 1, refuse(EINVAL), allow);

/**
 * The most bytes for a call that lists a directory: as many as the C library asks for at most. No other program runs on the processor
 * during a call. With a larger buffer, a list of 262,144 files took 0.1 s, and one of 65,000 mappings in /proc/self/map_files 0.15 s.
 */
const MAX_LIST_BYTES = 1024 * 1024;
const shortList = ifAtLeast(argument(2), MAX_LIST_BYTES + 1, refuse(EINVAL), allow);

const adviceRule = ifEqual(
  argument(2),
  MADVISE_WILLNEED,
  ignoreCall,
  onlyValues(argument(2), memoryAdvice, EINVAL),
);

const rulesOfCalls: Record<string, Decision> = {
  ioctl: ifEqual(argument(1), FIOASYNC, ignoreCall, onlyValues(argument(1), ioctlRequests, ENOTTY)),
  prctl: onlyValues(argument(0), prctlOptions, EINVAL),
  membarrier: onlyValues(argument(0), membarrierCommands, EINVAL),
  personality: onlyValues(argument(0), personalities, EINVAL),
  arch_prctl: onlyValues(argument(0), archCommands, EINVAL),
  // A kernel without filters returns this error, too.
  seccomp: refuse(EINVAL),
  clone: ifAnyBit(
    argument(0),
    CLONE_NAMESPACES,
    refuse(EPERM),
    ifAnyBit(argument(0), CLONE_THREAD, allow, ifAnyBit(argument(0), CLONE_SIGHAND, refuse(EPERM), allow)),
  ),
  mmap: ifAnyBit(argument(3), MAP_HUGETLB, refuse(ENOMEM), allow),
  memfd_create: ifAnyBit(argument(1), MFD_HUGETLB, refuse(EINVAL), allow),
  shmget: ifAnyBit(argument(2), SHM_HUGETLB, refuse(ENOMEM), allow),
  pipe2: ifAnyBit(argument(1), O_NOTIFICATION_PIPE, refuse(EINVAL), allow),
  mincore: shortRange(ENOMEM),
  madvise: decideByValue(
    argument(2),
    [
      [MADV_GUARD_INSTALL, shortRange(EINVAL)],
      [MADV_GUARD_REMOVE, shortRange(EINVAL)],
    ],
    adviceRule,
  ),
  poll: fewFiles(1),
  ppoll: fewFiles(1),
  select: fewFiles(0),
  pselect6: fewFiles(0),
  getdents: shortList,
  getdents64: shortList,
  fadvise64: decideByValue(
    argument(3),
    [
      [FADVISE_WILLNEED, ignoreCall],
      [FADVISE_DONTNEED, ignoreCall],
    ],
    allow,
  ),
  readahead: ignoreCall,
  // A program pinned to a processor can keep it from other sandboxes. And a thread of the kernel, which no limit counts, moves the
  // program at each call: 4,000 programs that changed their processors delayed the commands of others by up to 5 s.
  sched_setaffinity: ignoreCall,
  // Both calls put pages of a socket into a pipe, where no limit counts the pages. After this error, programs copy the data
  // themselves. A call with an offset is allowed, because only a file has offsets.
  splice: refuse(EINVAL),
  sendfile: ifNull(argument(2), refuse(EINVAL), allow),
  setxattr: noAttributes,
  lsetxattr: noAttributes,
  fsetxattr: noAttributes,
  tkill: notToFirst,
  tgkill: notToFirst,
  rt_sigqueueinfo: notToFirst,
  rt_tgsigqueueinfo: notToFirst,
  // The filter cannot see which process the descriptor refers to. Without a siginfo argument, the kernel fills in the sender.
  pidfd_send_signal: ifNull(argument(2), allow, refuse(EPERM)),
};

const RLIMIT_CORE = 4;
const RLIMIT_LOCKS = 10;

function rulesOfLimits(): Record<string, Decision> {
  // If core dumps would leave the sandbox, setting their size has no effect: with a limit of 0, unlike 1, the kernel would pipe them.
  // A call that also reads the old size fails, because it would return no size.
  const canLeave = canDumpOutside();
  const coreLimit = canLeave
    ? ifEqual(
        argument(1),
        RLIMIT_CORE,
        ifNull(argument(2), allow, ifNull(argument(3), ignoreCall, refuse(EPERM))),
        allow,
      )
    : allow;
  // A process may read the limits of other processes, such as the first process, but set only its own (process number 0). The limit
  // of file locks is an exception: Linux does not enforce it, and our programs mark the processes of a run with it. A JavaScript
  // kernel marks itself with prlimit(1).
  const others = ifEqual(argument(1), RLIMIT_LOCKS, allow, ifNull(argument(2), allow, refuse(EPERM)));
  return {
    setrlimit: canLeave ? ifEqual(argument(0), RLIMIT_CORE, ignoreCall, allow) : allow,
    prlimit64: ifEqual(argument(0), 0, coreLimit, others),
  };
}

const F_SETFL = 4;
/** For chown: -1 keeps an owner. */
const KEEP = 0xffffffff;
const SET_ID = 0o6000;
/** open's flags O_CREAT and __O_TMPFILE: without one of them the kernel ignores the mode. */
const OPEN_MAKES = 0o20000100;

function rulesOfFiles({ ids, hasHostDirectory }: FilterOptions, direct: number): Record<string, Decision> {
  // No file can get an owner outside the sandbox. Programs that unpack archives try to set such owners, and would stop on an error.
  // So the call succeeds without an effect, as on file systems without owners.
  const ifOwnerInSandbox = (index: number, yes: Decision) =>
    ifEqual(argument(index), KEEP, yes, ifAtLeast(argument(index), ids, ignoreCall, yes));
  const changeOfOwner = (owner: number) => ifOwnerInSandbox(owner, ifOwnerInSandbox(owner + 1, allow));
  // A set-user-id program in a host directory gives its owner's rights, often root's, to every user of the host.
  const mode = (index: number) =>
    hasHostDirectory ? ifAnyBit(argument(index), SET_ID, refuse(EPERM), allow) : allow;
  // Reads that bypass the cache cannot be interrupted: a killed sandbox would keep its memory until they end. File systems
  // without O_DIRECT, such as tmpfs before Linux 6.6, also return EINVAL.
  const openCall = (flags: number) =>
    ifAnyBit(
      argument(flags),
      direct,
      refuse(EINVAL),
      hasHostDirectory ? ifAnyBit(argument(flags), OPEN_MAKES, mode(flags + 1), allow) : allow,
    );
  // These calls write the caches of the whole machine. A sandbox's own files are in memory, so it does not need them.
  const sync = hasHostDirectory ? allow : ignoreCall;
  const setFlags = ifAnyBit(argument(2), direct | O_ASYNC, refuse(EINVAL), allow);
  return {
    chown: changeOfOwner(1),
    fchown: changeOfOwner(1),
    lchown: changeOfOwner(1),
    fchownat: changeOfOwner(2),
    chmod: mode(1),
    fchmod: mode(1),
    fchmodat: mode(2),
    fchmodat2: mode(2),
    creat: mode(1),
    mknod: mode(1),
    mknodat: mode(2),
    open: openCall(1),
    openat: openCall(2),
    fcntl: ifEqual(argument(1), F_SETFL, setFlags, onlyValues(argument(1), fcntlCommands, EINVAL)),
    sync,
    syncfs: sync,
  };
}
