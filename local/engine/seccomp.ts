/**
 * A sandbox's system call filter. It allows the calls that programs need. It refuses the others with the error of a kernel that
 * does not have them (ENOSYS), because all sandboxes share the machine's kernel, and rarely used interfaces have bugs. A filter cannot
 * read flags in memory, so it refuses clone3. Programs then use the older call.
 */
import { arch } from "node:process";
import { systemCalls } from "./allow-list.ts";
import {
  allow,
  ARCHITECTURE,
  argument,
  assemble,
  decideByValue,
  type Decision,
  ifAnyBit,
  ifAtLeast,
  ifEqual,
  ifNull,
  NUMBER,
  onlyValues,
  ignoreCall,
  refuse,
} from "./bpf.ts";
import { readText } from "./host-files.ts";

const EPERM = 1;
const EINVAL = 22;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;

const architectures = { x64: 0xc000003e, arm64: 0xc00000b7 };

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
  const rules: Record<string, Decision> = { ...rulesOfCalls, ...rulesOfCores(), ...rulesOfFiles(options) };
  const calls = [...systemCalls(arch)].map(([name, number]) => [number, rules[name] ?? allow] as const);
  const refused = refuse(ENOSYS);
  return assemble(ifEqual(ARCHITECTURE, architectures[arch], decideByValue(NUMBER, calls, refused), refused));
}

const CLONE_NAMESPACES = 0x7e020000;
/** PER_LINUX, PER_LINUX32 (for emulators), ADDR_NO_RANDOMIZE (for debuggers), and reading the current personality. */
const PERSONALITIES = [0, 8, 0x40000, 0xffffffff];
/** AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Other families ignore the network namespace (AF_VSOCK), or are rarely used. */
const SOCKET_FAMILIES = [1, 2, 10, 16];

const rulesOfCalls: Record<string, Decision> = {
  clone: ifAnyBit(argument(0), CLONE_NAMESPACES, refuse(EPERM), allow),
  personality: onlyValues(argument(0), PERSONALITIES, EINVAL),
  socket: onlyValues(argument(0), SOCKET_FAMILIES, EAFNOSUPPORT),
};

const RLIMIT_CORE = 4;

/**
 * If core dumps would leave the sandbox, setting their size has no effect: with a limit of 0, unlike 1, the kernel would pipe them.
 * A call that also reads the old size fails, because it would return no size.
 */
function rulesOfCores(): Record<string, Decision> {
  if (!canDumpOutside()) return {};
  const ofCall = ifNull(argument(2), allow, ifNull(argument(3), ignoreCall, refuse(EPERM)));
  return {
    setrlimit: ifEqual(argument(0), RLIMIT_CORE, ignoreCall, allow),
    prlimit64: ifEqual(argument(1), RLIMIT_CORE, ofCall, allow),
  };
}

/** For chown: -1 keeps an owner. */
const KEEP = 0xffffffff;
const SET_ID = 0o6000;
/** open's flags O_CREAT and __O_TMPFILE: without one of them the kernel ignores the mode. */
const OPEN_MAKES = 0o20000100;

function rulesOfFiles({ ids, hasHostDirectory }: FilterOptions): Record<string, Decision> {
  // No file can get an owner outside the sandbox. Programs that unpack archives try to set such owners, and would stop on an error.
  // So the call succeeds without an effect, as on file systems without owners.
  const ifOwnerInSandbox = (index: number, yes: Decision) =>
    ifEqual(argument(index), KEEP, yes, ifAtLeast(argument(index), ids, ignoreCall, yes));
  const changeOfOwner = (owner: number) => ifOwnerInSandbox(owner, ifOwnerInSandbox(owner + 1, allow));
  const owners = {
    chown: changeOfOwner(1),
    fchown: changeOfOwner(1),
    lchown: changeOfOwner(1),
    fchownat: changeOfOwner(2),
  };
  if (!hasHostDirectory) return owners;
  // A set-user-id program in a host directory gives its owner's rights, often root's, to every user of the host.
  const mode = (index: number) => ifAnyBit(argument(index), SET_ID, refuse(EPERM), allow);
  const open = (flags: number) => ifAnyBit(argument(flags), OPEN_MAKES, mode(flags + 1), allow);
  return {
    ...owners,
    chmod: mode(1),
    fchmod: mode(1),
    fchmodat: mode(2),
    fchmodat2: mode(2),
    creat: mode(1),
    mknod: mode(1),
    mknodat: mode(2),
    open: open(1),
    openat: open(2),
  };
}
