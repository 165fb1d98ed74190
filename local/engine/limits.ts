/** A sandbox's resource limits, and the control groups that enforce some of them. */
import { createHash, randomUUID } from "node:crypto";
import { access, constants, mkdir, readdir, rmdir, stat, writeFile } from "node:fs/promises";
import { existsSync, readFileSync, statSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { basename, dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import * as z from "zod";
import { succeeds } from "../../container/sandboxd/file-error.ts";
import { waitAtMost } from "../../src/shared/timers.ts";
import { loadText, readText } from "./host-files.ts";
import { runHost } from "./host-programs.ts";
import { identify, kill } from "./identity.ts";
import { processesOfAll } from "./process-limits.ts";

export const limitsSchema = z.strictObject({
  /** Bytes of the sandbox's files. They are in memory. */
  diskBytes: z.int(),
  /** Bytes of process memory, besides files. Needs a control group. */
  memoryBytes: z.int(),
  /** Bytes of memory for all sandboxes together, including files. Needs a control group. */
  allMemoryBytes: z.int(),
  /** How many bytes per second a sandbox may read from the machine's disks. Needs a control group. */
  diskReadBytes: z.int(),
  processes: z.int(),
  /** Processes and threads of all sandboxes together. Needs a control group. */
  allProcesses: z.number(),
  openFiles: z.int(),
  /** At this many open files on the machine, a sandbox with many open files is ended. Needs a control group. */
  openFilesOfMachine: z.number(),
  /** When this many files have been opened on the machine, a sandbox is ended if it has at least half as many timers (timerfd). */
  timersOfMachine: z.number(),
  /** At this many bytes in TCP connections on the machine, a sandbox with many connections is ended. */
  tcpBytesOfMachine: z.number(),
  /** At this many closed TCP connections with unsent data on the machine, a sandbox with many connections is ended. */
  tcpOrphansOfMachine: z.number(),
  /** At this many bytes in UDP sockets on the machine, a sandbox with many sockets is ended. */
  udpBytesOfMachine: z.number(),
  /** When the kernel's memory has grown by this many bytes, a sandbox is ended if its file locks, sockets or pipes explain the growth. */
  kernelGrowthOfMachine: z.number(),
  /**
   * When this many bytes of the machine's memory are in use, and the kernel's memory has grown by `kernelGrowthOfMachine` while sandboxes
   * ran, the sandbox with most of the kernel's memory is ended, whatever the reason of the growth is.
   */
  usedMemoryOfMachine: z.number(),
  /** When this many mappings of memory have been added on the machine, a sandbox is ended if it holds at least half of them. */
  mappingsOfMachine: z.number(),
  /** When this many file locks have been added on the machine, sandboxes of a principal that has at least half as many are ended. */
  fileLocksOfMachine: z.number(),
  /** When this many watches of epoll have been added on the machine, a sandbox is ended if it has at least half as many repeated ones. */
  epollWatchesOfMachine: z.number(),
  /** When the kernel's threads for terminals and Unix sockets use this many processors, a sandbox with many of these is ended. */
  kernelThreadProcessorsOfMachine: z.number(),
  /** When this many threads of sandboxes wait to open or close a pseudo terminal, the sandboxes of a principal that has most are ended. */
  terminalWaitersOfMachine: z.number(),
});

export type Limits = z.infer<typeof limitsSchema>;

export interface Sizes {
  root: number;
  /**
   * Bytes of the server's own files about runs. They are separate, so that a command that fills the disk still has output, and
   * the next command can clean up.
   */
  runs: number;
  sharedMemory: number;
}

export function sizesFor(diskBytes: number): Sizes {
  const part = (share: number) => Math.ceil(diskBytes / share);
  return { root: diskBytes, runs: part(4), sharedMemory: part(4) };
}

const MiB = 1024 * 1024;
/**
 * How many sandboxes share the machine's open files: the default maximum of one principal (MAX_RUNNING_SANDBOXES), and the
 * prepared sandbox.
 */
const sandboxes = 10 + 1;
/** The limit of a sandbox's socket buffers. All sockets of the machine share one pool, a twentieth of its memory. */
const socketBytes = 64 * MiB;
/** The age from which empty groups are removed, in milliseconds. A younger group may belong to a sandbox that starts or ends. */
const emptyMs = 60 * 60 * 1000;

/** The default limits: shares of this machine's memory, at most as much as a standard-1 container has. */
export function defaultLimits(given: Partial<Limits> = {}): Limits {
  const share = (part: number, least: number, most: number) =>
    Math.min(most, Math.max(least, Math.floor(totalmem() / part / MiB) * MiB));
  const processes = given.processes ?? 512;
  const maxOpenFiles = readSetting("fs/file-max");
  const allMemoryBytes =
    given.allMemoryBytes ?? Math.max(Math.floor(totalmem() / 2), totalmem() - share(8, 1024 * MiB, Infinity));
  return {
    diskBytes: share(8, 512 * MiB, 4096 * MiB),
    memoryBytes: share(4, 512 * MiB, 4096 * MiB),
    allMemoryBytes,
    diskReadBytes: 128 * MiB,
    processes,
    allProcesses: processesOfAll(readSetting("kernel/pid_max"), readSetting("kernel/threads-max")),
    openFiles: openFilesPerProcess(maxOpenFiles, processes),
    openFilesOfMachine: openFilesBeforeEnd(maxOpenFiles),
    // If they all end at once, a processor stops for about 0.1 s.
    timersOfMachine: 100_000,
    // Half of the kernel's limit, which is in pages.
    tcpBytesOfMachine: (readSetting("net/ipv4/tcp_mem") / 2) * 4096,
    tcpOrphansOfMachine: readSetting("net/ipv4/tcp_max_orphans") / 2,
    // Half of the first number: beyond it, the kernel drops most packets.
    udpBytesOfMachine: (readSetting("net/ipv4/udp_mem", 0) / 2) * 4096,
    kernelGrowthOfMachine: totalmem() / 16,
    // Three quarters of what the sandboxes leave to other programs.
    usedMemoryOfMachine: totalmem() - (totalmem() - allMemoryBytes) / 4,
    // To truncate a file with this many mappings then takes about 0.2 s. A browser has about 15,000.
    mappingsOfMachine: 500_000,
    // To close a descriptor of epoll then takes about 1 ms.
    fileLocksOfMachine: 10_000,
    // A packet with 120 segments then stops a processor for about 0.1 s.
    epollWatchesOfMachine: 5000,
    kernelThreadProcessorsOfMachine: availableParallelism() / 4,
    // Another one then waits for up to 0.3 s.
    terminalWaitersOfMachine: 32,
    ...given,
  };
}

/** The limit of open files for one process, at least 1,024. All sandboxes together can open about half of the machine's files. */
export function openFilesPerProcess(openFilesOfMachine: number, processes: number): number {
  return Math.min(65_536, Math.max(1024, Math.floor(openFilesOfMachine / 2 / sandboxes / processes)));
}

/**
 * At how many open files of the machine a sandbox is ended. systemd removes Linux's default limit, a file for each 10 KiB of memory.
 * With more files, their memory that no control group counts (256 bytes for a descriptor of timerfd or epoll) would fill the machine.
 */
export function openFilesBeforeEnd(maxOpenFiles: number, memoryBytes = totalmem()): number {
  return Math.min(maxOpenFiles, memoryBytes / 10_240) * 0.7;
}

/** @param index which of the setting's numbers; without it, the last */
export function readSetting(setting: string, index = -1): number {
  const text = readText(`/proc/sys/${setting}`);
  return text === "" ? Infinity : Number(text.trim().split(/\s+/).at(index));
}

/** All sandboxes together leave a quarter of the processors to the server, but at most one processor. */
export const SANDBOX_PROCESSORS = availableParallelism() - Math.min(1, availableParallelism() / 4);
/** The period of a processor limit, in microseconds. A group that has used its time in a period waits until the next one. */
const PERIOD_US = 20_000;
/** The smallest processor time for each period that the kernel accepts, in microseconds. */
const MIN_QUOTA_US = 1000;

/** Values for a group's files, for both versions of control groups. A group has only the files of its version and controllers. */
type FileValues = [file: string, value: string | number][];

/** The engine continues without a value that cannot be set, such as a limit that the machine has not enabled. */
async function setFiles(group: string, values: FileValues): Promise<void> {
  const flag = constants.O_WRONLY;
  for (const [file, value] of values)
    await writeFile(join(group, file), String(value), { flag }).catch(() => undefined);
}

/** @param processors undefined means no limit */
function processorLimit(processors: number | undefined): FileValues {
  const quota =
    processors === undefined ? undefined : Math.max(MIN_QUOTA_US, Math.round(processors * PERIOD_US));
  return [
    ["cpu.cfs_period_us", PERIOD_US],
    ["cpu.cfs_quota_us", quota ?? -1],
    ["cpu.max", `${quota ?? "max"} ${PERIOD_US}`],
  ];
}

/**
 * How much of the memory for all sandboxes is free when the guard begins to end sandboxes: a tenth, at least 1 GiB if that is at most
 * a fifth. Until the memory of an ended sandbox was free (0.5 s), others took 400 MB on two cores.
 */
export const memoryMargin = (allMemoryBytes: number) =>
  Math.max(allMemoryBytes / 10, Math.min(1024 * MiB, allMemoryBytes / 5));

/**
 * The limits of all sandboxes together. Under contention, the sandboxes get half as much processor time as the server. In version 1, the
 * sandboxes' group competes with the server's threads. Each thread has a weight of 1,024, and the group's weight is divided among the
 * processors. In version 2, the group competes with the group that contains the server, whose weight is usually 100. The weights are not
 * enough: when 45 programs woke up often to print single bytes, Linux 6.18 gave the sandboxes 97 % of the time.
 *
 * Sandboxes can take memory faster than the guard ends them. At the limit, the kernel would end the largest program, which may be a
 * neighbour's. So programs wait until the guard has ended sandboxes. In version 1, they wait when they use a new page, and system calls get
 * ENOMEM (`oom_control`). In version 2, they wait before the limit (`high`).
 */
const engineLimits = ({ allMemoryBytes, allProcesses }: Limits): FileValues => [
  ["pids.max", allProcesses],
  ["memory.limit_in_bytes", allMemoryBytes],
  ["memory.memsw.limit_in_bytes", allMemoryBytes],
  ["memory.max", allMemoryBytes],
  ["memory.oom_control", 1],
  ["memory.high", Math.floor(allMemoryBytes - memoryMargin(allMemoryBytes) / 2)],
  ["cpu.shares", (1024 / 2) * availableParallelism()],
  ["cpu.weight", 100 / 2],
  ...processorLimit(SANDBOX_PROCESSORS),
];

/** The limits of one sandbox. By default, principals share the processors equally; processor-shares.ts limits busy sandboxes. */
async function sandboxLimits(limits: Limits): Promise<FileValues> {
  const { root, runs } = sizesFor(limits.diskBytes);
  // Files are in memory, so the limit includes room for a full disk: programs must then get ENOSPC, and not be killed.
  const memory = limits.memoryBytes + root + runs;
  const reads = limits.diskReadBytes;
  return [
    ["pids.max", limits.processes],
    ["memory.limit_in_bytes", memory],
    // With swap, as `memory.swap.max` for version 2. Otherwise, one sandbox could fill the machine's.
    ["memory.memsw.limit_in_bytes", memory],
    // Version 2 counts socket buffers as memory.
    ["memory.kmem.tcp.limit_in_bytes", socketBytes],
    ["memory.max", memory],
    // Otherwise, the group would have the value of the engine's group.
    ["memory.oom_control", 0],
    ["memory.swap.max", 0],
    ...(await findDisks()).flatMap((disk): FileValues => [
      ["blkio.throttle.read_bps_device", `${disk} ${reads}`],
      ["blkio.throttle.read_iops_device", `${disk} ${READS_PER_SECOND}`],
      ["io.max", `${disk} rbps=${reads} riops=${READS_PER_SECOND}`],
    ]),
  ];
}

/** `cpuacct` is the part of version 1 that counts processor time. Usually it has the groups of `cpu`. */
type Controller = "memory" | "pids" | "cpu" | "cpuacct" | "io";

export interface GroupParent {
  version: 1 | 2;
  path: string;
  controllers: Controller[];
}

export async function findGroupParents(): Promise<GroupParent[]> {
  const usableParents: GroupParent[] = [];
  for (const line of (await loadText("/proc/self/cgroup")).split("\n")) {
    const [, controllers = "", path = "/"] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const names = controllers.replace("blkio", "io").split(",");
    const controller = [...allControllers, "cpuacct" as const].find((name) => names.includes(name));
    if (controller !== undefined) {
      const directory = join("/sys/fs/cgroup", controllers, path);
      const parent: GroupParent = { version: 1, path: directory, controllers: [controller] };
      if (await isUsable(parent)) usableParents.push(parent);
    } else if (controllers === "" && line.startsWith("0::")) {
      const parent = await findParentOfVersion2(path);
      if (parent !== undefined) usableParents.push(parent);
    }
  }
  return usableParents;
}

/** The resources of which sandboxes can take as much as they want. */
export function unlimited(parents: GroupParent[]): string[] {
  const held = new Set(parents.flatMap(({ controllers }) => controllers));
  return Object.entries({ memory: "memory", cpu: "processors" } as const).flatMap(([controller, name]) =>
    held.has(controller as Controller) ? [] : [name],
  );
}

/**
 * A group with processes cannot delegate controllers to children, so the engine uses one of the groups that contain its own: the
 * nearest one with all controllers. systemd enables only the controllers of memory and processes for most groups. So, if none has
 * a controller, the engine enables it as far up as it may: there, the fewest other groups are affected.
 */
async function findParentOfVersion2(own: string): Promise<GroupParent | undefined> {
  // On a machine with both versions, groups of version 2 have no controllers. They only stop programs (freeze.ts).
  const hybrid: GroupParent = { version: 2, path: join("/sys/fs/cgroup/unified", own), controllers: [] };
  if (await isUsable(hybrid)) return hybrid;
  const directories: string[] = [];
  for (let at = own; at !== dirname(at);) directories.push(join("/sys/fs/cgroup", (at = dirname(at))));
  if (directories.length === 0) directories.push("/sys/fs/cgroup");
  for (const controllers of [
    allControllers,
    ["memory", "pids", "cpu"],
    ["memory", "pids"],
  ] as Controller[][]) {
    const parents = directories.map((path): GroupParent => ({ version: 2, path, controllers }));
    for (const parent of parents) if (await isUsable(parent)) return parent;
    for (const parent of parents.toReversed()) {
      const available = (await loadText(join(parent.path, "cgroup.controllers"))).trim().split(" ");
      if (!controllers.every((controller) => available.includes(controller))) continue;
      await setFiles(parent.path, subtreeControl(controllers));
      if (await isUsable(parent)) return parent;
    }
  }
  return undefined;
}

/** One write for each controller, because the kernel refuses a write with one that is not available. */
const subtreeControl = (controllers: Controller[]): FileValues =>
  controllers.map((controller) => ["cgroup.subtree_control", `+${controller}`]);

const allControllers: Controller[] = ["memory", "pids", "cpu", "io"];
/** How many reads per second a sandbox may make from the machine's disks. Repeated reads come from memory and do not count. */
const READS_PER_SECOND = 2000;

/** The disks of the files that sandboxes see, as `<major>:<minor>`. Disks of overlay file systems are unknown. */
export async function findDisks(): Promise<string[]> {
  disks ??= Promise.all(["/usr", process.execPath, import.meta.dirname].map(diskOf));
  return [...new Set((await disks).flat())];
}
let disks: Promise<string[][]> | undefined;

async function diskOf(path: string): Promise<string[]> {
  try {
    const source = await runHost("findmnt", ["-nvo", "SOURCE", "-T", path]);
    const { rdev } = statSync(source.trim());
    const device = `/sys/dev/block/${(rdev >>> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >>> 12) & 0xfff00)}`;
    // Limits apply to whole disks.
    const file = existsSync(`${device}/partition`) ? `${device}/../dev` : `${device}/dev`;
    return [readFileSync(file, "utf8").trim()];
  } catch {
    return [];
  }
}

async function isUsable(parent: GroupParent): Promise<boolean> {
  // A new name: an engine that was killed may have left its group, and another engine may have the same process id.
  const trial = join(parent.path, `${groupPrefix}trial-${randomUUID()}`);
  try {
    // Moving a process requires write access to this file of the common ancestor.
    await access(join(parent.path, "cgroup.procs"), constants.W_OK);
    await mkdir(trial);
  } catch {
    return false;
  }
  try {
    for (const controller of parent.controllers)
      await access(join(trial, limitFile(parent, controller)), constants.W_OK);
    return true;
  } catch {
    return false;
  } finally {
    await rmdir(trial).catch(() => undefined);
  }
}

export const groupPrefix = "sandbox-mcp-";

function limitFile({ version }: GroupParent, controller: Controller): string {
  if (controller === "pids") return "pids.max";
  if (controller === "io") return version === 2 ? "io.max" : "blkio.throttle.read_bps_device";
  if (controller === "cpu") return version === 2 ? "cpu.weight" : "cpu.shares";
  if (controller === "cpuacct") return "cpuacct.usage";
  return version === 2 ? "memory.max" : "memory.limit_in_bytes";
}

/** Creates the groups that limit all sandboxes of an engine together. @returns their directories */
export async function createEngineGroups(
  parents: GroupParent[],
  boot: string,
  limits: Limits,
): Promise<string[]> {
  return await createInEach(parents, async ({ path, controllers }) => {
    const directory = join(path, groupPrefix + boot);
    await mkdir(directory, { recursive: true });
    await setFiles(directory, [...subtreeControl(controllers), ...engineLimits(limits)]);
    return directory;
  });
}

export async function createGroups(parents: GroupParent[], name: string, limits: Limits): Promise<string[]> {
  const values = await sandboxLimits(limits);
  return await createInEach(parents, async (parent) => {
    const directory = join(parent.path, groupPrefix + name);
    // The engine's group may be gone: another engine removes groups that have been empty for an hour.
    await mkdir(directory).catch(async () => {
      await createEngineGroups([parent], dirname(name), limits);
      await mkdir(directory);
    });
    await setFiles(directory, values);
    return directory;
  });
}

const principalPrefix = "principal-";

/**
 * Moves a sandbox's processes into a group inside its principal's group. So the programs of another principal compete for the
 * processors with few groups, however many sandboxes this principal has, also while they start. A sandbox begins in this group; only
 * a prepared one moves, which takes 25 ms. If it is its principal's only sandbox, it does not move. Only groups that divide processor
 * time move: in version 1, memory stays charged to the group that a process leaves. In version 2, where one group has all
 * controllers, the memory of a prepared sandbox's first programs stays charged there too, so it counts in the limit of all sandboxes,
 * but not in the sandbox's own.
 * @returns the sandbox's groups
 */
export async function joinPrincipal(
  groups: readonly string[],
  principal: string,
  limits: Limits,
): Promise<string[]> {
  const name = principalPrefix + createHash("sha256").update(principal).digest("hex").slice(0, 32);
  const values = await sandboxLimits(limits);
  return await Promise.all(
    groups.map(async (group) => {
      const hasJoined = basename(dirname(group)) === name;
      const hasProcessors = existsSync(join(group, "cpu.shares")) || existsSync(join(group, "cpu.weight"));
      if (hasJoined || !hasProcessors) return group;
      const whole = join(dirname(group), name);
      const joined = join(whole, basename(group));
      // Makes both levels at once: otherwise the end of the principal's last sandbox could remove the first level in between.
      if (!(await succeeds(mkdir(joined, { recursive: true })))) return group;
      await setFiles(whole, subtreeControl(allControllers));
      await setFiles(joined, values);
      await moveProcesses(group, joined);
      return joined;
    }),
  );
}

/** Moves all processes, also those that start meanwhile. */
async function moveProcesses(from: string, to: string): Promise<void> {
  for (let attempt = 0; attempt < 10; attempt += 1) {
    const members = await membersOf(from);
    if (members.length === 0) return;
    // At once, because the kernel prepares for moves for about 8 ms, and each move with a pause before it would wait for that again.
    await Promise.all(members.map(async (pid) => await setFiles(to, [["cgroup.procs", pid]])));
  }
}

/** The ids of a group's processes. */
async function membersOf(group: string): Promise<number[]> {
  return (await loadText(join(group, "cgroup.procs"))).split("\n").map(Number).filter(Boolean);
}

/** The engine continues without a group that cannot be made. */
async function createInEach(
  parents: GroupParent[],
  create: (parent: GroupParent) => Promise<string>,
): Promise<string[]> {
  const results = await Promise.allSettled(parents.map(create));
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}

/** Limits a group's processors; undefined means no limit. Does nothing if the kernel does not support this limit. */
export async function limitProcessors(group: string, processors: number | undefined): Promise<void> {
  await setFiles(group, processorLimit(processors));
}

/** How long to wait until groups are removed, in milliseconds. */
const REMOVE_MS = 1000;

/**
 * Removes groups. A group is busy until the kernel has ended its last process. This usually takes some milliseconds, but longer if
 * the process had many files. So this function waits for a second, and then tries further in the background.
 */
export async function removeGroups(directories: readonly string[]): Promise<void> {
  await waitAtMost(REMOVE_MS, Promise.all(directories.map(removeGroup)));
}

async function removeGroup(directory: string): Promise<void> {
  for (let waitMs = 25; !(await isRemoved(directory)); waitMs = Math.min(2 * waitMs, REMOVE_MS))
    await pause(waitMs, undefined, { ref: false });
  // Fails while the principal has other sandboxes.
  const parent = dirname(directory);
  if (basename(parent).startsWith(principalPrefix)) await rmdir(parent).catch(() => undefined);
}

async function isRemoved(directory: string): Promise<boolean> {
  return await rmdir(directory).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code === "ENOENT",
  );
}

export async function endLeftoverGroups(parents: GroupParent[], boot: string): Promise<void> {
  for (const { path } of parents) {
    for (const directory of await groupsFrom(join(path, groupPrefix + boot))) {
      await killGroup(directory);
      await removeGroups([directory]);
    }
  }
}

async function groupsIn(directory: string, prefix = ""): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isDirectory() && entry.name.startsWith(prefix))
    .map(({ name }) => join(directory, name));
}

/** A group and all groups in it, the deepest first. */
async function groupsFrom(directory: string): Promise<string[]> {
  const groups = await groupsIn(directory);
  return [...(await Promise.all(groups.map((group) => groupsFrom(group)))).flat(), directory];
}

/**
 * Removes empty groups of engines without a run directory, because nothing else would find them. Keeps young groups: another
 * engine may be about to use them. The kernel does not remove groups with processes.
 */
export async function removeForgottenGroups(parents: GroupParent[]): Promise<void> {
  for (const { path } of parents) {
    for (const whole of await groupsIn(path, groupPrefix)) {
      for (const directory of await groupsFrom(whole)) {
        const made = await stat(directory).catch(() => undefined);
        if (made !== undefined && Date.now() - made.mtimeMs > emptyMs)
          await rmdir(directory).catch(() => undefined);
      }
    }
  }
}

/** Ends all programs of groups at once. Only version 2 of control groups can do that, since Linux 5.14. */
export async function killAtOnce(groups: readonly string[]): Promise<void> {
  await Promise.all(groups.map(async (group) => await setFiles(group, [["cgroup.kill", 1]])));
}

async function killGroup(directory: string): Promise<void> {
  await killAtOnce([directory]);
  for (let attempt = 0; attempt < 10; attempt += 1) {
    const members = await membersOf(directory);
    if (members.length === 0) return;
    for (const pid of members) kill(identify(pid) ?? "");
    await pause(25);
  }
}
