/**
 * A seccomp filter for what namespaces do not limit: address families that ignore the network namespace (AF_VSOCK reaches the
 * hypervisor), keyrings, pools of the whole machine, leases on the host's files, set-user-id programs in a host directory, and
 * unneeded interfaces that often have kernel bugs. Everything else stays allowed.
 */
import { arch } from "node:process";
import {
  ALLOW,
  allowed,
  assemble,
  block,
  ERRNO,
  type Instruction,
  JUMP_ANY_BIT,
  JUMP_EQUAL,
  JUMP_GREATER_OR_EQUAL,
  LOAD,
  OFFSET_ARCH,
  OFFSET_FIRST_ARGUMENT,
  OFFSET_NUMBER,
  OFFSET_SECOND_ARGUMENT,
  offsetOfArgument,
  refused,
  RETURN,
} from "./bpf.ts";
import { readText } from "./host-files.ts";
import { type SocketCalls, socketRules } from "./socket-filter.ts";

const EPERM = 1;
const EINVAL = 22;
const ENOSPC = 28;
const ENOSYS = 38;
/**
 * Newer calls than those below; programs work without them. setxattrat is the first, and has its size in memory: see
 * `largeAttributes`. Calls of the x32 ABI, which have another table, have much higher numbers.
 */
const FIRST_UNKNOWN = 463;
const CLONE_NEWUSER = 0x10000000;
/** Its flags are in memory, which a filter cannot read; the C library falls back to clone. Same number everywhere. */
const CLONE3 = 435;
const RLIMIT_CORE = 4;
const RLIMIT_LOCKS = 10;
/** For chown: -1 keeps an owner. */
const KEEP = 0xffffffff;
const F_SETFL = 4;
/** fcntl: a write to a leased file waits for the lease's holder: a sandbox could block programs of the host. */
const F_SETLEASE = 1024;
/**
 * fcntl: each read in a directory goes through all its watchers, under a lock. A hundred thousand watchers of a directory in
 * /usr slow every program of the machine. EINVAL is the result without CONFIG_DNOTIFY.
 */
const F_NOTIFY = 1026;
/**
 * fcntl: the first and last of the calls for locks of open files. The kernel names no process for such a lock, so the machine's
 * guard could not find the sandbox that has a million. EINVAL is the result of a kernel without them.
 */
const F_OFD_GETLK = 36;
const F_OFD_SETLKW = 38;
/** Its flags and mode are in memory, as for clone3; programs fall back to openat. Same number everywhere. */
const OPENAT2 = 437;
/** Its advice is in memory, too: see `asksOfCache`. Same number everywhere. */
const PROCESS_MADVISE = 440;
const FADVISE_WILLNEED = 3;
const FADVISE_DONTNEED = 4;
const MADVISE_WILLNEED = 3;
/** Same number everywhere. */
const PIDFD_SEND_SIGNAL = 424;
const PR_SET_SECCOMP = 22;
const SECCOMP_MODE_FILTER = 2;
const SECCOMP_SET_MODE_FILTER = 1;
const SET_ID = 0o6000;
/** open's flags O_CREAT and __O_TMPFILE: without one of them the kernel reads no mode. Same everywhere. */
const OPEN_MAKES = 0o20000100;

interface Table extends SocketCalls {
  audit: number;
  ioctl: number;
  /** setxattr, lsetxattr, fsetxattr. */
  setxattr: number[];
  clone: number;
  fcntl: number;
  /** The machine has 65,536 slots for asynchronous I/O. Programs work without it. */
  ioSetup: number;
  denied: number[];
  /** chown and similar calls, with the argument that has the new owner. */
  chown: Record<number, number>;
  /** chmod and calls that create files, with the argument that has the mode. mkdir ignores set-id bits. */
  mode: Record<number, number>;
  setrlimit: number;
  prlimit: number;
  prctl: number;
  seccomp: number;
  madvise: number;
  fadvise: number;
  readahead: number;
  /** open and similar calls, with the argument that has the flags. The next argument has the mode. */
  open: Record<number, number>;
  direct: number;
  /** rt_sigqueueinfo, rt_tgsigqueueinfo, tkill and tgkill. */
  signal: number[];
}

// Denied, in both rows: mount family and pivot_root, keyrings, bpf, perf, userfaultfd, io_uring, kexec, modules, quota, nfs,
// reboot, swap, accounting, clocks, handles, lookup_dcookie, iopl, unshare, setns; the policies of memory (mbind,
// set_mempolicy, migrate_pages, move_pages), which count in no control group.
const tables: Partial<Record<typeof arch, Table>> = {
  x64: {
    audit: 0xc000003e,
    socket: 41,
    socketpair: 53,
    setsockopt: 54,
    ioctl: 16,
    setxattr: [188, 189, 190],
    clone: 56,
    fcntl: 72,
    ioSetup: 206,
    chown: { 92: 1, 93: 1, 94: 1, 260: 2 },
    mode: { 90: 1, 91: 1, 268: 2, 452: 2, 85: 1, 133: 1, 259: 2 },
    setrlimit: 160,
    prlimit: 302,
    prctl: 157,
    seccomp: 317,
    madvise: 28,
    fadvise: 221,
    readahead: 187,
    open: { 2: 1, 257: 2 },
    direct: 0o40000,
    signal: [129, 297, 200, 234],
    denied: [
      155, 161, 163, 164, 165, 166, 167, 168, 169, 172, 173, 175, 176, 179, 180, 212, 227, 246, 248, 249, 250,
      237, 238, 256, 272, 279, 298, 303, 304, 305, 308, 313, 320, 321, 323, 425, 426, 427, 428, 429, 430, 431,
      432, 433, 442, 450,
    ],
  },
  arm64: {
    audit: 0xc00000b7,
    socket: 198,
    socketpair: 199,
    setsockopt: 208,
    ioctl: 29,
    setxattr: [5, 6, 7],
    clone: 220,
    fcntl: 25,
    ioSetup: 0,
    chown: { 55: 1, 54: 2 },
    mode: { 52: 1, 53: 2, 452: 2, 33: 2 },
    setrlimit: 164,
    prlimit: 261,
    prctl: 167,
    seccomp: 277,
    madvise: 233,
    fadvise: 223,
    readahead: 213,
    open: { 56: 2 },
    direct: 0o200000,
    signal: [138, 240, 130, 131],
    denied: [
      18, 39, 40, 41, 42, 51, 60, 89, 97, 104, 105, 106, 112, 142, 170, 217, 218, 219, 224, 225, 235, 237,
      238, 239, 241, 264, 265, 266, 268, 273, 280, 282, 294, 425, 426, 427, 428, 429, 430, 431, 432, 433, 442,
      450,
    ],
  },
};

/**
 * Requests by which the kernel loads a module: TIOCSETD (line disciplines); SIOCGIFBR, SIOCSIFBR, SIOCBRADDBR, SIOCBRDELBR
 * (bridges); SIOCGIFVLAN, SIOCSIFVLAN.
 */
const loadingRequests = [0x5423, 0x8940, 0x8941, 0x89a0, 0x89a1, 0x8982, 0x8983];

/** In bytes: an access control list with 31 entries. */
const MAX_ATTRIBUTE = 256;

/** Whether the machine pipes core dumps to a program or socket outside the sandbox. */
export function pipesCoreDumps(): boolean {
  return /^[|@]/.test(readText("/proc/sys/kernel/core_pattern"));
}

/**
 * The compiled filter; undefined for an unknown architecture. @param ids the number of the sandbox's user and group ids @param
 * hasHostDirectory whether it can write to a host directory, where its programs are the host's too
 */
export function seccompFilter(options: { ids: number; hasHostDirectory: boolean }): Buffer | undefined {
  const { ids, hasHostDirectory } = options;
  const table = tables[arch];
  if (table === undefined) return undefined;
  const program: Instruction[] = [
    [LOAD, 0, 0, OFFSET_ARCH],
    [JUMP_EQUAL, 1, 0, table.audit],
    [RETURN, 0, 0, ERRNO | ENOSYS],
    [LOAD, 0, 0, OFFSET_NUMBER],
    [JUMP_GREATER_OR_EQUAL, 0, 1, FIRST_UNKNOWN],
    [RETURN, 0, 0, ERRNO | ENOSYS],
  ];
  for (const number of table.denied) {
    program.push([JUMP_EQUAL, 0, 1, number], [RETURN, 0, 0, ERRNO | EPERM]);
  }
  for (const number of [CLONE3, table.ioSetup, OPENAT2, PROCESS_MADVISE]) {
    program.push([JUMP_EQUAL, 0, 1, number], [RETURN, 0, 0, ERRNO | ENOSYS]);
  }
  for (const [number, argument] of pairsOf(table.chown))
    program.push(...changeOfOwner(number, argument, ids));
  program.push(...asksOfCache(table));
  if (hasHostDirectory) {
    for (const [number, mode] of pairsOf(table.mode)) program.push(...setID(number, mode));
    for (const [number, flags] of pairsOf(table.open)) program.push(...setID(number, flags + 1, flags));
  }
  program.push(...limitsOfOthers(table), ...signalsToFirst(table), ...ownFilters(table));
  if (pipesCoreDumps()) program.push(...limitOfCores(table));
  program.push(...fileControl(table), ...largeAttributes(table), ...loadingModules(table));
  program.push([JUMP_EQUAL, 0, 4, table.clone], [LOAD, 0, 0, OFFSET_FIRST_ARGUMENT]);
  program.push([JUMP_ANY_BIT, 0, 1, CLONE_NEWUSER], [RETURN, 0, 0, ERRNO | EPERM], [RETURN, 0, 0, ALLOW]);
  program.push(...socketRules(table), allowed);
  return assemble(program);
}

const SUCCESS = ERRNO;

function pairsOf(calls: Record<number, number>): [number: number, argument: number][] {
  return Object.entries(calls).map(([number, argument]) => [Number(number), argument]);
}

function fileControl({ fcntl, direct }: Table): Instruction[] {
  return block(fcntl, [
    [LOAD, 0, 0, OFFSET_SECOND_ARGUMENT],
    ...block(F_SETLEASE, [refused(EPERM)]),
    ...block(F_NOTIFY, [refused(EINVAL)]),
    [JUMP_GREATER_OR_EQUAL, 0, 2, F_OFD_GETLK],
    [JUMP_GREATER_OR_EQUAL, 1, 0, F_OFD_SETLKW + 1],
    refused(EINVAL),
    ...block(F_SETFL, [
      [LOAD, 0, 0, offsetOfArgument(2)],
      [JUMP_ANY_BIT, 0, 1, direct],
      refused(EINVAL),
      allowed,
    ]),
    allowed,
  ]);
}

/**
 * The kernel keeps an access control list, two of 64 KiB for each directory, in memory that counts in no control group. ENOSPC
 * is ext4's result for an attribute without room.
 */
function largeAttributes({ setxattr }: Table): Instruction[] {
  return setxattr.flatMap((number) =>
    block(number, [
      [LOAD, 0, 0, offsetOfArgument(3)],
      [JUMP_GREATER_OR_EQUAL, 0, 1, MAX_ATTRIBUTE + 1],
      refused(ENOSPC),
      allowed,
    ]),
  );
}

function loadingModules({ ioctl }: Table): Instruction[] {
  const requests = loadingRequests.flatMap((request) => block(request, [refused(EINVAL)]));
  return block(ioctl, [[LOAD, 0, 0, OFFSET_SECOND_ARGUMENT], ...requests, allowed]);
}

/** The upper half of a 64-bit argument, such as an address: both architectures are little-endian. */
const upperHalfOf = (index: number) => offsetOfArgument(index) + 4;

/**
 * A file cannot be given to a user outside the sandbox. Programs that unpack archives try, and stop on an error, so the call
 * succeeds without an effect, as on file systems without owners. -1 keeps an owner.
 */
function changeOfOwner(number: number, argument: number, ids: number): Instruction[] {
  return [
    [JUMP_EQUAL, 0, 8, number],
    [LOAD, 0, 0, offsetOfArgument(argument)],
    [JUMP_EQUAL, 1, 0, KEEP],
    [JUMP_GREATER_OR_EQUAL, 3, 0, ids],
    [LOAD, 0, 0, offsetOfArgument(argument + 1)],
    [JUMP_EQUAL, 2, 0, KEEP],
    [JUMP_GREATER_OR_EQUAL, 0, 1, ids],
    [RETURN, 0, 0, SUCCESS],
    [RETURN, 0, 0, ALLOW],
  ];
}

/**
 * All sandboxes and the host share the kernel's cache of common files. A page that a sandbox requests waits for the sandbox's
 * share of the disk, and so does every other program that needs it: reading gigabytes ahead would delay all starting programs.
 * So hints to read ahead or to drop pages succeed without an effect. Reads past the cache (O_DIRECT) cannot be interrupted, and
 * a killed sandbox would keep its memory until the disk has served them. They get EINVAL, as from file systems without
 * O_DIRECT, such as tmpfs before Linux 6.6.
 */
function asksOfCache({ madvise, fadvise, readahead, open, direct }: Table): Instruction[] {
  return [
    [JUMP_EQUAL, 0, 1, readahead],
    [RETURN, 0, 0, SUCCESS],
    [JUMP_EQUAL, 0, 5, fadvise],
    [LOAD, 0, 0, offsetOfArgument(3)],
    [JUMP_EQUAL, 1, 0, FADVISE_WILLNEED],
    [JUMP_EQUAL, 0, 1, FADVISE_DONTNEED],
    [RETURN, 0, 0, SUCCESS],
    [RETURN, 0, 0, ALLOW],
    [JUMP_EQUAL, 0, 4, madvise],
    [LOAD, 0, 0, offsetOfArgument(2)],
    [JUMP_EQUAL, 0, 1, MADVISE_WILLNEED],
    [RETURN, 0, 0, SUCCESS],
    [RETURN, 0, 0, ALLOW],
    ...pairsOf(open).flatMap(([number, flags]): Instruction[] => [
      [JUMP_EQUAL, 0, 4, number],
      [LOAD, 0, 0, offsetOfArgument(flags)],
      [JUMP_ANY_BIT, 0, 1, direct],
      [RETURN, 0, 0, ERRNO | EINVAL],
      // Other rules for this call follow.
      [LOAD, 0, 0, OFFSET_NUMBER],
    ]),
  ];
}

/** A set-user-id program in a host directory gives its owner's rights, often root's, to every user of the host. */
function setID(number: number, mode: number, flags?: number): Instruction[] {
  const refusal: Instruction[] = [
    [LOAD, 0, 0, offsetOfArgument(mode)],
    [JUMP_ANY_BIT, 0, 1, SET_ID],
    [RETURN, 0, 0, ERRNO | EPERM],
    [RETURN, 0, 0, ALLOW],
  ];
  if (flags !== undefined)
    refusal.unshift([LOAD, 0, 0, offsetOfArgument(flags)], [JUMP_ANY_BIT, 0, 3, OPEN_MAKES]);
  return [[JUMP_EQUAL, 0, refusal.length, number], ...refusal];
}

/** Setting the size of core dumps succeeds without an effect. */
function limitOfCores({ setrlimit, prlimit }: Table): Instruction[] {
  return [
    [JUMP_EQUAL, 0, 4, setrlimit],
    [LOAD, 0, 0, offsetOfArgument(0)],
    [JUMP_EQUAL, 0, 1, RLIMIT_CORE],
    [RETURN, 0, 0, SUCCESS],
    [RETURN, 0, 0, ALLOW],
    [JUMP_EQUAL, 0, 12, prlimit],
    [LOAD, 0, 0, offsetOfArgument(1)],
    [JUMP_EQUAL, 0, 9, RLIMIT_CORE],
    // Without a new limit the call reads, and with room for the old one it must return it.
    [LOAD, 0, 0, offsetOfArgument(2)],
    [JUMP_EQUAL, 0, 2, 0],
    [LOAD, 0, 0, upperHalfOf(2)],
    [JUMP_EQUAL, 5, 0, 0],
    [LOAD, 0, 0, offsetOfArgument(3)],
    [JUMP_EQUAL, 0, 3, 0],
    [LOAD, 0, 0, upperHalfOf(3)],
    [JUMP_EQUAL, 0, 1, 0],
    [RETURN, 0, 0, SUCCESS],
    [RETURN, 0, 0, ALLOW],
  ];
}

/**
 * A process may read limits of others, such as the first process, but set only its own (number 0). Except file locks, which
 * Linux does not enforce: they mark a run's processes, and a JavaScript kernel sets its mark by a program.
 */
function limitsOfOthers({ prlimit }: Table): Instruction[] {
  return [
    [JUMP_EQUAL, 0, 10, prlimit],
    [LOAD, 0, 0, offsetOfArgument(0)],
    [JUMP_EQUAL, 7, 0, 0],
    [LOAD, 0, 0, offsetOfArgument(1)],
    [JUMP_EQUAL, 5, 0, RLIMIT_LOCKS],
    [LOAD, 0, 0, offsetOfArgument(2)],
    [JUMP_EQUAL, 0, 2, 0],
    [LOAD, 0, 0, upperHalfOf(2)],
    [JUMP_EQUAL, 1, 0, 0],
    [RETURN, 0, 0, ERRNO | EPERM],
    // Other rules for this call follow.
    [LOAD, 0, 0, OFFSET_NUMBER],
  ];
}

/**
 * The first process takes a signal for the platform's if its sender has no process id in the sandbox. When the queue of signals
 * is full, the kernel says the same of signals sent by these calls. kill(2) always has room and stays allowed.
 */
function signalsToFirst({ signal }: Table): Instruction[] {
  const toFirst = signal.flatMap((number): Instruction[] => [
    [JUMP_EQUAL, 0, 4, number],
    [LOAD, 0, 0, offsetOfArgument(0)],
    [JUMP_EQUAL, 0, 1, 1],
    [RETURN, 0, 0, ERRNO | EPERM],
    [RETURN, 0, 0, ALLOW],
  ]);
  // A descriptor names the process, which no filter can see.
  const withSender: Instruction[] = [
    [JUMP_EQUAL, 0, 6, PIDFD_SEND_SIGNAL],
    [LOAD, 0, 0, offsetOfArgument(2)],
    [JUMP_EQUAL, 0, 3, 0],
    [LOAD, 0, 0, upperHalfOf(2)],
    [JUMP_EQUAL, 0, 1, 0],
    [RETURN, 0, 0, ALLOW],
    [RETURN, 0, 0, ERRNO | EPERM],
  ];
  return [...toFirst, ...withSender];
}

/**
 * System call filters that programs load come from the same pool as this one. The limit of processes does not bound them: a
 * descriptor (SECCOMP_FILTER_FLAG_NEW_LISTENER) keeps a filter, 57 KB, after its process has ended. EINVAL is the result of a
 * kernel without filters; man, sshd and Chromium continue without one.
 */
function ownFilters({ prctl, seccomp }: Table): Instruction[] {
  return [
    [JUMP_EQUAL, 0, 4, seccomp],
    [LOAD, 0, 0, offsetOfArgument(0)],
    [JUMP_EQUAL, 0, 1, SECCOMP_SET_MODE_FILTER],
    [RETURN, 0, 0, ERRNO | EINVAL],
    [RETURN, 0, 0, ALLOW],
    [JUMP_EQUAL, 0, 6, prctl],
    [LOAD, 0, 0, offsetOfArgument(0)],
    [JUMP_EQUAL, 0, 3, PR_SET_SECCOMP],
    [LOAD, 0, 0, offsetOfArgument(1)],
    [JUMP_EQUAL, 0, 1, SECCOMP_MODE_FILTER],
    [RETURN, 0, 0, ERRNO | EINVAL],
    [RETURN, 0, 0, ALLOW],
  ];
}
