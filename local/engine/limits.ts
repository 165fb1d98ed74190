/** Resource limits of a sandbox: control groups where they can be had, and what is in force otherwise. */
import { access, constants, mkdir, readFile, readdir, rmdir, stat, writeFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { dirname, join } from "node:path";
import { identify, kill } from "./identity.ts";

export interface Limits {
  /** Bytes of the files a sandbox may hold. They live in memory. */
  diskBytes: number;
  /** Bytes of memory for processes, beside the files. Needs a control group. */
  memoryBytes: number;
  /** Bytes of memory for all sandboxes together, files included. Needs a control group. */
  allMemoryBytes: number;
  /** Processes and threads. */
  processes: number;
  /** Open files per process. */
  openFiles: number;
  /** Open files of the whole machine from which on the sandbox that holds most of them is ended. Needs a control group. */
  openFilesOfMachine: number;
  /** Bytes in TCP connections of the whole machine from which on the sandbox that has most connections is ended. */
  tcpBytesOfMachine: number;
}

/** The writable file systems and their sizes in bytes. */
export interface Sizes {
  /** `/`, where everything lies that is not named below. */
  root: number;
  /** Our files of runs. They are apart so that a command that fills the disk still has its output, and the next one can clear it up. */
  runs: number;
  sharedMemory: number;
}

export function sizesFor(diskBytes: number): Sizes {
  const part = (share: number) => Math.ceil(diskBytes / share);
  return { root: diskBytes, runs: part(4), sharedMemory: part(4) };
}

const MiB = 1024 * 1024;

/**
 * How many sandboxes share what the machine has open: as many as one principal may run (MAX_RUNNING_SANDBOXES), and the
 * one that is started ahead.
 */
const sandboxes = 10 + 1;

/** What may wait in the sockets of a sandbox: the kernel has one pool for the whole machine, a twentieth of its memory. */
const socketBytes = 64 * MiB;

/** A group is empty for the moment until its sandbox starts, and while it ends. Milliseconds. */
const emptyMs = 60 * 60 * 1000;

/** A share of this machine's memory, at most what a standard-1 container has. */
export function defaultLimits(given: Partial<Limits> = {}): Limits {
  const share = (part: number, least: number, most: number) =>
    Math.min(most, Math.max(least, Math.floor(totalmem() / part / MiB) * MiB));
  const processes = given.processes ?? 512;
  const maxOpenFiles = ofMachine("fs/file-max");
  return {
    diskBytes: share(8, 512 * MiB, 4096 * MiB),
    memoryBytes: share(4, 512 * MiB, 4096 * MiB),
    allMemoryBytes: Math.max(Math.floor(totalmem() / 2), totalmem() - share(8, 1024 * MiB, Infinity)),
    processes,
    openFiles: openFilesPerProcess(maxOpenFiles, processes),
    openFilesOfMachine: maxOpenFiles * 0.7,
    // Where the kernel begins to save: half of what it gives at most.
    tcpBytesOfMachine: (ofMachine("net/ipv4/tcp_mem") / 2) * 4096,
    ...given,
  };
}

/**
 * Open files of each process, such that all sandboxes together get half of what the machine can have open, unless 1,024 a
 * process are more.
 */
export function openFilesPerProcess(openFilesOfMachine: number, processes: number): number {
  return Math.min(65_536, Math.max(1024, Math.floor(openFilesOfMachine / 2 / sandboxes / processes)));
}

/** The last number of a setting of the kernel, which is the highest of its values where it has several. */
function ofMachine(setting: string): number {
  try {
    return Number(readFileSync(`/proc/sys/${setting}`, "utf8").trim().split(/\s+/).at(-1));
  } catch {
    return Infinity;
  }
}

/**
 * What all sandboxes together have of a processor that the server wants too: half of what the server has. In version 1 their
 * group is beside the threads of the server, which have 1,024 each, and its weight is spread over the processors; in version 2
 * it is beside the server's group, which has 100.
 */
const cpuWeight = { 1: (1024 / 2) * availableParallelism(), 2: 100 / 2 };

type Controller = "memory" | "pids" | "cpu";

/** A place under which groups can be made, one per hierarchy. */
export interface GroupParent {
  version: 1 | 2;
  /** Directory in which the engine may create a group. */
  path: string;
  controllers: Controller[];
}

/** Finds where this process may create control groups. Empty where it may not, which is common for a plain user. */
export async function findGroupParents(): Promise<GroupParent[]> {
  const found: GroupParent[] = [];
  for (const line of (await read("/proc/self/cgroup")).split("\n")) {
    const [, controllers = "", path = "/"] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const controller = known.find((one) => controllers.split(",").includes(one));
    if (controller !== undefined) {
      const directory = join("/sys/fs/cgroup", controllers, path);
      const parent: GroupParent = { version: 1, path: directory, controllers: [controller] };
      if (await usable(parent)) found.push(parent);
    } else if (controllers === "" && line.startsWith("0::")) {
      // A group with processes in it cannot hand controllers to its children: a sibling of ours is the place.
      for (const directory of [join("/sys/fs/cgroup", dirname(path)), "/sys/fs/cgroup"]) {
        // The processor is often not handed on where memory is.
        const all: Controller[][] = [known, ["memory", "pids"]];
        const parents = all.map((some): GroupParent => ({ version: 2, path: directory, controllers: some }));
        const isUsable = await Promise.all(parents.map(usable));
        const parent = parents[isUsable.indexOf(true)];
        if (parent !== undefined) {
          found.push(parent);
          break;
        }
      }
    }
  }
  return found;
}

const known: Controller[] = ["memory", "pids", "cpu"];

async function usable(parent: GroupParent): Promise<boolean> {
  const trial = join(parent.path, `${groupPrefix}trial-${process.pid}-${parent.controllers.join("-")}`);
  try {
    // Moving a process needs this file of the common ancestor to be writable.
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

/**
 * Makes the groups that hold those of all sandboxes of an engine. They bound what the sandboxes have together; nothing is
 * written to a group that is not the engine's.
 * @returns their directories
 */
export async function createEngineGroups(
  parents: GroupParent[],
  boot: string,
  { allMemoryBytes }: Limits,
): Promise<string[]> {
  const made: string[] = [];
  for (const parent of parents) {
    const directory = join(parent.path, groupPrefix + boot);
    const set = (file: string, value: string | number) => writeFile(join(directory, file), String(value));
    try {
      await mkdir(directory).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error;
      });
      made.push(directory);
      if (parent.version === 2)
        await set("cgroup.subtree_control", parent.controllers.map((one) => `+${one}`).join(" "));
      for (const controller of parent.controllers) {
        if (controller === "memory") await set(limitFile(parent, controller), allMemoryBytes);
        if (controller === "cpu") await set(limitFile(parent, controller), cpuWeight[parent.version]);
      }
    } catch {
      // As with the group of a sandbox.
    }
  }
  return made;
}

/**
 * Bytes of memory that the processes and files of a group cannot give back; 0 where it counts no memory. What the kernel keeps
 * of the machine's files does not count.
 */
export async function memoryOf(group: string): Promise<number> {
  const used = Number(
    (await read(join(group, "memory.current"))) || (await read(join(group, "memory.usage_in_bytes"))),
  );
  if (used === 0) return 0;
  const statistics = await read(join(group, "memory.stat"));
  const isFirst = /^total_cache /m.test(statistics);
  const cached = ["active_file", "inactive_file"].map((name) => {
    const found = new RegExp(`^${isFirst ? "total_" : ""}${name} (\\d+)$`, "m").exec(statistics);
    return Number(found?.[1] ?? 0);
  });
  return Math.max(
    0,
    cached.reduce((left, bytes) => left - bytes, used),
  );
}

/** Bytes of memory that the kernel keeps for the processes and open files of a group. */
export async function kernelMemoryOf(group: string): Promise<number> {
  const ofSecond = /^slab_unreclaimable (\d+)$/m.exec(await read(join(group, "memory.stat")))?.[1];
  return Number(ofSecond ?? (await read(join(group, "memory.kmem.usage_in_bytes"))));
}

/** Makes the groups of one sandbox, `<boot>/<id>`, and sets their limits. @returns their directories. */
export async function createGroups(parents: GroupParent[], name: string, limits: Limits): Promise<string[]> {
  const made: string[] = [];
  for (const parent of parents) {
    const directory = join(parent.path, groupPrefix + name);
    try {
      // Another engine takes the engine's group for forgotten when that has been empty for long.
      await mkdir(directory).catch(async () => {
        await createEngineGroups([parent], dirname(name), limits);
        await mkdir(directory);
      });
      made.push(directory);
      for (const controller of parent.controllers) {
        // Sandboxes have equal shares of the processor: what the kernel gives without being told.
        if (controller === "cpu") continue;
        // Files are memory too: a full disk must be ENOSPC, not a kill.
        const value = controller === "pids" ? limits.processes : limits.memoryBytes + filesBytes(limits);
        await writeFile(join(directory, limitFile(parent, controller)), String(value));
      }
      // The second version counts what waits in sockets as memory.
      const sockets =
        parent.controllers.includes("memory") && parent.version === 1
          ? "memory.kmem.tcp.limit_in_bytes"
          : undefined;
      if (sockets !== undefined)
        await writeFile(join(directory, sockets), String(socketBytes)).catch(() => undefined);
      const noSwap = parent.version === 2 ? "memory.swap.max" : undefined;
      if (noSwap !== undefined) await writeFile(join(directory, noSwap), "0").catch(() => undefined);
    } catch {
      // The sandbox runs without this group; `inForce` reports what there is.
    }
  }
  return made;
}

function filesBytes({ diskBytes }: Limits): number {
  const { root, runs } = sizesFor(diskBytes);
  return root + runs;
}

/** Removes groups; a group is busy for a moment after its last process died. */
export async function removeGroups(directories: string[]): Promise<void> {
  for (const directory of directories) {
    for (let attempt = 0; attempt < 40; attempt += 1) {
      const removed = await rmdir(directory).then(
        () => true,
        (error: NodeJS.ErrnoException) => error.code === "ENOENT",
      );
      if (removed) break;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }
}

/** Kills what is in the groups that an engine which was killed left behind, and removes them. */
export async function endLeftoverGroups(parents: GroupParent[], boot: string): Promise<void> {
  for (const { path } of parents) {
    const whole = join(path, groupPrefix + boot);
    for (const directory of await groupsIn(whole)) {
      await killGroup(directory);
      await removeGroups([directory]);
    }
    await removeGroups([whole]);
  }
}

/** The directories in one that begin with some letters. */
async function groupsIn(directory: string, prefix = ""): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isDirectory() && entry.name.startsWith(prefix))
    .map(({ name }) => join(directory, name));
}

/**
 * Removes the empty groups of engines whose run directory is gone too, so that nothing else names them. Another engine
 * may be about to start a sandbox in an empty one, hence the age; one with processes in it the kernel does not remove.
 */
export async function removeForgottenGroups(parents: GroupParent[]): Promise<void> {
  for (const { path } of parents) {
    for (const whole of await groupsIn(path, groupPrefix)) {
      for (const directory of [...(await groupsIn(whole)), whole]) {
        const made = await stat(directory).catch(() => undefined);
        if (made !== undefined && Date.now() - made.mtimeMs > emptyMs)
          await rmdir(directory).catch(() => undefined);
      }
    }
  }
}

async function killGroup(directory: string): Promise<void> {
  for (let attempt = 0; attempt < 10; attempt += 1) {
    const members = (await read(join(directory, "cgroup.procs"))).split("\n").map(Number).filter(Boolean);
    if (members.length === 0) return;
    for (const pid of members) kill(identify(pid) ?? "");
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

async function read(file: string): Promise<string> {
  return await readFile(file, "utf8").catch(() => "");
}
