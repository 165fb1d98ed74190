/**
 * A seccomp filter for what namespaces do not hold: address families that ignore the network namespace (AF_VSOCK reaches the
 * hypervisor), the kernel's keyrings, pools of the whole machine, leases on the host's files, set-user-id programs in a
 * directory of the host, and interfaces a sandbox has no use for that are a frequent source of kernel bugs. Everything else
 * stays allowed.
 */
import { arch } from "node:process";
import { readText } from "./host-files.ts";

// linux/filter.h, linux/seccomp.h, linux/audit.h
const LOAD = 0x20;
const JUMP_EQUAL = 0x15;
const JUMP_GREATER_OR_EQUAL = 0x35;
const JUMP_ANY_BIT = 0x45;
const RETURN = 0x06;
const ALLOW = 0x7fff0000;
const ERRNO = 0x00050000;
const EPERM = 1;
const EINVAL = 22;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;
const OFFSET_NUMBER = 0;
const OFFSET_ARCH = 4;
const OFFSET_FIRST_ARGUMENT = 16;
const OFFSET_SECOND_ARGUMENT = 24;
/** Calls of the x32 ABI carry this bit; their numbers are another table. */
const X32_BIT = 0x40000000;
const CLONE_NEWUSER = 0x10000000;
/** Its flags lie in memory, out of a filter's sight; the C library falls back to clone. Same number everywhere. */
const CLONE3 = 435;
const RLIMIT_CORE = 4;
const RLIMIT_LOCKS = 10;
/** chown's: -1. */
const KEEP = 0xffffffff;
const F_SETFL = 4;
/** fcntl: a write to a leased file waits for the lease holder, so a sandbox could block programs on the host. */
const F_SETLEASE = 1024;
/**
 * fcntl: each read of a file in a directory goes through all who asked to be told, under a lock. A hundred thousand for a
 * directory of /usr hold up every program of the machine. A kernel without CONFIG_DNOTIFY answers EINVAL.
 */
const F_NOTIFY = 1026;
/** Its flags and mode lie in memory, as clone3's flags do; programs fall back to openat. Same number everywhere. */
const OPENAT2 = 437;
/** What it asks for lies in memory, too: see `asksOfCache`. Same number everywhere. */
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

interface Table {
  audit: number;
  socket: number;
  setsockopt: number;
  clone: number;
  fcntl: number;
  /** The machine has 65,536 slots for asynchronous I/O in all. Programs do without where a kernel has none. */
  ioSetup: number;
  denied: number[];
  /** chown and its like, with the place of the new owner among their arguments. */
  chown: [number: number, argument: number][];
  /** chmod and what makes files, with the place of the mode and of open's flags. Not mkdir, which ignores set-id bits. */
  mode: [number: number, mode: number, flags?: number][];
  setrlimit: number;
  prlimit: number;
  prctl: number;
  seccomp: number;
  madvise: number;
  fadvise: number;
  readahead: number;
  /** open and its like, with the place of the flags. */
  open: [number: number, flags: number][];
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
    setsockopt: 54,
    clone: 56,
    fcntl: 72,
    ioSetup: 206,
    chown: [
      [92, 1],
      [93, 1],
      [94, 1],
      [260, 2],
    ],
    mode: [
      [90, 1],
      [91, 1],
      [268, 2],
      [452, 2],
      [85, 1],
      [133, 1],
      [259, 2],
      [2, 2, 1],
      [257, 3, 2],
    ],
    setrlimit: 160,
    prlimit: 302,
    prctl: 157,
    seccomp: 317,
    madvise: 28,
    fadvise: 221,
    readahead: 187,
    open: [
      [2, 1],
      [257, 2],
    ],
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
    setsockopt: 208,
    clone: 220,
    fcntl: 25,
    ioSetup: 0,
    chown: [
      [55, 1],
      [54, 2],
    ],
    mode: [
      [52, 1],
      [53, 2],
      [452, 2],
      [33, 2],
      [56, 3, 2],
    ],
    setrlimit: 164,
    prlimit: 261,
    prctl: 167,
    seccomp: 277,
    madvise: 233,
    fadvise: 223,
    readahead: 213,
    open: [[56, 2]],
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
 * SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF. The compiled filters of the whole
 * machine have one pool (net.core.bpf_jit_limit), without which no sandbox can be started: see `ownFilters`.
 */
const socketFilters = [26, 50, 51, 52];
const SOL_SOCKET = 1;
const ENOPROTOOPT = 92;
/** IPPROTO_UDPLITE and IPPROTO_MPTCP: nobody needs them here. Who asks for MPTCP of its own accord, as Go does, falls back to TCP. */
const refusedProtocols = [136, 262];
const EPROTONOSUPPORT = 93;
/** AF_UNIX, AF_INET, AF_INET6. */
const families = [1, 2, 10];

/**
 * Of AF_NETLINK only NETLINK_ROUTE, which the C library asks for the interfaces. By others processes send messages to each
 * other, and those that nobody reads count in no memory of the sandbox.
 */
const AF_NETLINK = 16;
const NETLINK_ROUTE = 0;

/** Whether the machine gives core dumps to a program or a socket of its own: then they would leave the sandbox. */
export function pipesCoreDumps(): boolean {
  return /^[|@]/.test(readText("/proc/sys/kernel/core_pattern"));
}

/**
 * The compiled filter for this machine, or undefined on an architecture it has no table for.
 * @param ids how many user and group ids the sandbox has, from 0 on
 * @param hasHostDirectory whether it can write to a directory of the host, where its programs are the host's too
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
    [JUMP_GREATER_OR_EQUAL, 0, 1, X32_BIT],
    [RETURN, 0, 0, ERRNO | ENOSYS],
  ];
  for (const number of table.denied) {
    program.push([JUMP_EQUAL, 0, 1, number], [RETURN, 0, 0, ERRNO | EPERM]);
  }
  for (const number of [CLONE3, table.ioSetup, OPENAT2, PROCESS_MADVISE]) {
    program.push([JUMP_EQUAL, 0, 1, number], [RETURN, 0, 0, ERRNO | ENOSYS]);
  }
  program.push(...table.chown.flatMap(([number, argument]) => changeOfOwner(number, argument, ids)));
  program.push(...asksOfCache(table));
  if (hasHostDirectory) program.push(...table.mode.flatMap((call) => setID(...call)));
  program.push(...limitsOfOthers(table), ...signalsToFirst(table), ...ownFilters(table));
  if (pipesCoreDumps()) program.push(...limitOfCores(table));
  program.push([JUMP_EQUAL, 0, 10, table.fcntl], [LOAD, 0, 0, OFFSET_SECOND_ARGUMENT]);
  program.push([JUMP_EQUAL, 0, 1, F_SETLEASE], [RETURN, 0, 0, ERRNO | EPERM]);
  program.push([JUMP_EQUAL, 0, 1, F_NOTIFY], [RETURN, 0, 0, ERRNO | EINVAL]);
  program.push([JUMP_EQUAL, 0, 3, F_SETFL], [LOAD, 0, 0, offsetOfArgument(2)]);
  program.push([JUMP_ANY_BIT, 0, 1, table.direct], [RETURN, 0, 0, ERRNO | EINVAL], [RETURN, 0, 0, ALLOW]);
  program.push([JUMP_EQUAL, 0, 4, table.clone], [LOAD, 0, 0, OFFSET_FIRST_ARGUMENT]);
  program.push([JUMP_ANY_BIT, 0, 1, CLONE_NEWUSER], [RETURN, 0, 0, ERRNO | EPERM], [RETURN, 0, 0, ALLOW]);
  program.push([JUMP_EQUAL, 0, 4 + 2 * socketFilters.length, table.setsockopt]);
  program.push(
    [LOAD, 0, 0, OFFSET_SECOND_ARGUMENT],
    [JUMP_EQUAL, 0, 1 + 2 * socketFilters.length, SOL_SOCKET],
  );
  program.push([LOAD, 0, 0, offsetOfArgument(2)]);
  for (const option of socketFilters) {
    program.push([JUMP_EQUAL, 0, 1, option], [RETURN, 0, 0, ERRNO | ENOPROTOOPT]);
  }
  program.push([RETURN, 0, 0, ALLOW]);
  program.push([JUMP_EQUAL, 1, 0, table.socket], [RETURN, 0, 0, ALLOW], [LOAD, 0, 0, offsetOfArgument(2)]);
  for (const protocol of refusedProtocols) {
    program.push([JUMP_EQUAL, 0, 1, protocol], [RETURN, 0, 0, ERRNO | EPROTONOSUPPORT]);
  }
  program.push([LOAD, 0, 0, OFFSET_FIRST_ARGUMENT]);
  for (const family of families) {
    program.push([JUMP_EQUAL, 0, 1, family], [RETURN, 0, 0, ALLOW]);
  }
  program.push([JUMP_EQUAL, 0, 2, AF_NETLINK], [LOAD, 0, 0, offsetOfArgument(2)]);
  program.push([JUMP_EQUAL, 1, 0, NETLINK_ROUTE], [RETURN, 0, 0, ERRNO | EAFNOSUPPORT]);
  program.push([RETURN, 0, 0, ALLOW]);
  return assemble(program);
}

const SUCCESS = ERRNO;

const offsetOfArgument = (index: number) => OFFSET_FIRST_ARGUMENT + 8 * index;

/** Of an argument of 64 bits, such as an address: both architectures are little-endian. */
const upperHalfOf = (index: number) => offsetOfArgument(index) + 4;

/**
 * Nobody can be given a file who is not in the sandbox. What unpacks archives asks for it and stops where it is refused, so it
 * succeeds and does nothing, as on file systems without owners. An owner of -1 stays who he is.
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
 * All sandboxes and the host share what the kernel has in memory of their common files. What a sandbox asks to be read waits
 * for the sandbox's share of the disk, and so does every other program that needs a page of it: gigabytes read ahead would
 * hold up all programs that start. So hints to read ahead, or to forget what was read, succeed and do nothing.
 *
 * Reads past that memory (O_DIRECT) wait where no signal interrupts them, and a killed sandbox would keep its memory until
 * its share of the disk has served them. EINVAL is the answer of file systems without them, such as tmpfs before Linux 6.6.
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
    ...open.flatMap(([number, flags]): Instruction[] => [
      [JUMP_EQUAL, 0, 4, number],
      [LOAD, 0, 0, offsetOfArgument(flags)],
      [JUMP_ANY_BIT, 0, 1, direct],
      [RETURN, 0, 0, ERRNO | EINVAL],
      // What else holds for it follows.
      [LOAD, 0, 0, OFFSET_NUMBER],
    ]),
  ];
}

/** A set-user-id program in a directory of the host gives its owner's rights, often root's, to every user of the host. */
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

/** Setting the size of core dumps succeeds and does nothing. */
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
    // Without a new limit it asks; with room for the old one it must answer.
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
 * Limits of another process, the first one of the sandbox among them, can be asked for and not set. Its own is number 0. Not so
 * the limit of file locks, which Linux does not apply: it marks the processes of a run, and a JavaScript kernel sets its own by
 * a program.
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
    // What else holds for it follows.
    [LOAD, 0, 0, OFFSET_NUMBER],
  ];
}

/**
 * The first process believes that a signal comes from the platform if its sender has no process id in the sandbox. Where no more signals can wait, the
 * kernel says so of signals that any process sends by these calls. kill(2), for which there is always room, is left.
 */
function signalsToFirst({ signal }: Table): Instruction[] {
  const toFirst = signal.flatMap((number): Instruction[] => [
    [JUMP_EQUAL, 0, 4, number],
    [LOAD, 0, 0, offsetOfArgument(0)],
    [JUMP_EQUAL, 0, 1, 1],
    [RETURN, 0, 0, ERRNO | EPERM],
    [RETURN, 0, 0, ALLOW],
  ]);
  // Of a process that a descriptor names: no filter sees which one.
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
 * Filters of system calls that programs load themselves, from the same pool as this one. The number of processes does not
 * bound them: a descriptor (SECCOMP_FILTER_FLAG_NEW_LISTENER) keeps a filter, and 57 KB of the pool, when its process has
 * ended. EINVAL is the answer of a kernel without such filters, with which programs go on: man, sshd, Chromium.
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

/** code, jump if true, jump if false, constant */
type Instruction = [number, number, number, number];

function assemble(program: Instruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8);
  program.forEach(([code, whenTrue, whenFalse, constant], index) => {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(whenTrue, index * 8 + 2);
    bytes.writeUInt8(whenFalse, index * 8 + 3);
    bytes.writeUInt32LE(constant >>> 0, index * 8 + 4);
  });
  return bytes;
}
