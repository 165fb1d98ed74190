/** A sandbox's resource limits, and the control groups that enforce some of them. */
import { randomUUID } from "node:crypto";
import { access, constants, mkdir, readdir, rmdir, stat, writeFile } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import * as z from "zod";
import { waitAtMost } from "../../src/shared/timers.ts";
import { loadText, readText } from "./host-files.ts";
import { identify, kill } from "./identity.ts";

export const limitsSchema = z.strictObject({
  /** Bytes of the sandbox's files. They are in memory. */
  diskBytes: z.int(),
  /** Bytes of process memory, besides files. Needs a control group. */
  memoryBytes: z.int(),
  /** Bytes of memory for all sandboxes together, including files. Needs a control group. */
  allMemoryBytes: z.int(),
  processes: z.int(),
  /** Processes and threads of all sandboxes together. Needs a control group. */
  allProcesses: z.number(),
  openFiles: z.int(),
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
/** The limit of a sandbox's socket buffers. All sockets of the machine share one pool, a twentieth of its memory. */
const socketBytes = 64 * MiB;
/** The age from which empty groups are removed, in milliseconds. A younger group may belong to a sandbox that starts or ends. */
const emptyMs = 60 * 60 * 1000;

/** The most open files of a process, as in Docker's and systemd's defaults for services. The server's own hard limit may be lower. */
const OPEN_FILES = 65_536;
/** Sandboxes leave a quarter of the machine's processes to other programs. */
const PROCESSES_SHARE = 3 / 4;

/** The default limits: shares of this machine's memory, at most as much as a standard-1 container has. */
export function defaultLimits(given: Partial<Limits> = {}): Limits {
  const share = (part: number, least: number, most: number) =>
    Math.min(most, Math.max(least, Math.floor(totalmem() / part / MiB) * MiB));
  return {
    diskBytes: share(8, 512 * MiB, 4096 * MiB),
    memoryBytes: share(4, 512 * MiB, 4096 * MiB),
    allMemoryBytes: Math.max(Math.floor(totalmem() / 2), totalmem() - share(8, 1024 * MiB, Infinity)),
    processes: 512,
    allProcesses: Math.floor(
      Math.min(readSetting("kernel/pid_max"), readSetting("kernel/threads-max")) * PROCESSES_SHARE,
    ),
    openFiles: OPEN_FILES,
    ...given,
  };
}

function readSetting(setting: string): number {
  const text = readText(`/proc/sys/${setting}`);
  return text === "" ? Infinity : Number(text);
}

/**
 * How many processes and threads all sandboxes may have together. The number is lower than the limit if a control group around theirs has a
 * limit, such as a container's.
 * @param parents the groups in which the engine makes its groups
 */
export async function processesWithin(
  parents: readonly { path: string }[],
  allProcesses: number,
): Promise<number> {
  const texts = await Promise.all(parents.map(({ path }) => loadText(join(path, "pids.max"))));
  const limits = texts.filter((text) => /^\d+\n$/.test(text)).map(Number);
  return Math.min(allProcesses, ...limits.map((limit) => Math.floor(limit * PROCESSES_SHARE)));
}

/** All sandboxes together leave a quarter of the processors to the server, but at most one processor. */
const SANDBOX_PROCESSORS = availableParallelism() - Math.min(1, availableParallelism() / 4);
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

function processorLimit(processors: number): FileValues {
  const quota = Math.max(MIN_QUOTA_US, Math.round(processors * PERIOD_US));
  return [
    ["cpu.cfs_period_us", PERIOD_US],
    ["cpu.cfs_quota_us", quota],
    ["cpu.max", `${quota} ${PERIOD_US}`],
  ];
}

const memoryLimit = (bytes: number): FileValues => [
  ["memory.limit_in_bytes", bytes],
  // With swap, as `memory.swap.max` for version 2. Otherwise, one sandbox could fill the machine's.
  ["memory.memsw.limit_in_bytes", bytes],
  ["memory.max", bytes],
  ["memory.swap.max", 0],
];

/**
 * The limits of all sandboxes together. Under contention, the sandboxes get half as much processor time as the server. In version 1, the
 * sandboxes' group competes with the server's threads: each thread has a weight of 1,024, and the group's weight is divided among the
 * processors. In version 2, the group competes with the group that contains the server, whose weight is usually 100.
 */
const engineLimits = ({ allMemoryBytes, allProcesses }: Limits): FileValues => [
  ["pids.max", allProcesses],
  ...memoryLimit(allMemoryBytes),
  ["cpu.shares", (1024 / 2) * availableParallelism()],
  ["cpu.weight", 100 / 2],
  ...processorLimit(SANDBOX_PROCESSORS),
];

/** One busy sandbox leaves a third of the sandboxes' processor time to the others. */
const SANDBOX_SHARE = 2 / 3;

function sandboxLimits(limits: Limits): FileValues {
  const { root, runs } = sizesFor(limits.diskBytes);
  return [
    ["pids.max", limits.processes],
    // Files are in memory, so the limit includes room for a full disk: programs must then get ENOSPC, and not be killed.
    ...memoryLimit(limits.memoryBytes + root + runs),
    // Version 2 counts socket buffers as memory.
    ["memory.kmem.tcp.limit_in_bytes", socketBytes],
    ...processorLimit(SANDBOX_PROCESSORS * SANDBOX_SHARE),
  ];
}

type Controller = "memory" | "pids" | "cpu";

export interface GroupParent {
  version: 1 | 2;
  path: string;
  controllers: Controller[];
}

export async function findGroupParents(): Promise<GroupParent[]> {
  const usableParents: GroupParent[] = [];
  for (const line of (await loadText("/proc/self/cgroup")).split("\n")) {
    const [, controllers = "", path = "/"] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const controller = allControllers.find((name) => controllers.split(",").includes(name));
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
  const directories: string[] = [];
  for (let at = own; at !== dirname(at);) directories.push(join("/sys/fs/cgroup", (at = dirname(at))));
  if (directories.length === 0) directories.push("/sys/fs/cgroup");
  for (const controllers of [allControllers, ["memory", "pids"]] as Controller[][]) {
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

const allControllers: Controller[] = ["memory", "pids", "cpu"];
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
  if (controller === "cpu") return version === 2 ? "cpu.weight" : "cpu.shares";
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
  const values = sandboxLimits(limits);
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
