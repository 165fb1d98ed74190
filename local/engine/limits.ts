/** Resource limits of a sandbox: control groups where they can be had, and what is in force otherwise. */
import { access, constants, mkdir, readFile, readdir, rmdir, stat, writeFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { dirname, join } from "node:path";
import { sizesFor } from "./bubblewrap.ts";
import { identify, kill } from "./identity.ts";

export interface Limits {
  /** Bytes of the files a sandbox may hold. They live in memory. */
  diskBytes: number;
  /** Bytes of memory for processes, beside the files. Needs a control group. */
  memoryBytes: number;
  /** Processes and threads. */
  processes: number;
  /** Open files per process. */
  openFiles: number;
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
  return {
    diskBytes: share(8, 512 * MiB, 4096 * MiB),
    memoryBytes: share(4, 512 * MiB, 4096 * MiB),
    processes,
    openFiles: openFilesPerProcess(openFilesOfAll(), processes),
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

/** What this machine can have open at once. */
function openFilesOfAll(): number {
  try {
    return Number(readFileSync("/proc/sys/fs/file-max", "utf8"));
  } catch {
    return Infinity;
  }
}

/** A place under which groups can be made, one per hierarchy. */
export interface GroupParent {
  version: 1 | 2;
  /** Directory in which the engine may create a group. */
  path: string;
  controllers: ("memory" | "pids")[];
}

/** Finds where this process may create control groups. Empty where it may not, which is common for a plain user. */
export async function findGroupParents(): Promise<GroupParent[]> {
  const found: GroupParent[] = [];
  for (const line of (await read("/proc/self/cgroup")).split("\n")) {
    const [, controllers = "", path = "/"] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === "memory" || controllers === "pids") {
      const directory = join("/sys/fs/cgroup", controllers, path);
      const parent: GroupParent = { version: 1, path: directory, controllers: [controllers] };
      if (await usable(parent)) found.push(parent);
    } else if (controllers === "" && line.startsWith("0::")) {
      // A group with processes in it cannot hand controllers to its children: a sibling of ours is the place.
      for (const directory of [join("/sys/fs/cgroup", dirname(path)), "/sys/fs/cgroup"]) {
        const parent: GroupParent = { version: 2, path: directory, controllers: ["memory", "pids"] };
        if (await usable(parent)) {
          found.push(parent);
          break;
        }
      }
    }
  }
  return found;
}

async function usable(parent: GroupParent): Promise<boolean> {
  const trial = join(parent.path, `${groupPrefix}trial-${process.pid}`);
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

function limitFile({ version }: GroupParent, controller: "memory" | "pids"): string {
  if (controller === "pids") return "pids.max";
  return version === 2 ? "memory.max" : "memory.limit_in_bytes";
}

/** Makes the groups of one sandbox and sets their limits. @returns their directories. */
export async function createGroups(parents: GroupParent[], name: string, limits: Limits): Promise<string[]> {
  const made: string[] = [];
  for (const parent of parents) {
    const directory = join(parent.path, groupPrefix + name);
    try {
      await mkdir(directory);
      made.push(directory);
      for (const controller of parent.controllers) {
        // Files are memory too: a full disk must be ENOSPC, not a kill.
        const value = controller === "pids" ? limits.processes : limits.memoryBytes + filesBytes(limits);
        await writeFile(join(directory, limitFile(parent, controller)), String(value));
      }
      // The second version counts what waits in sockets as memory.
      const sockets = parent.version === 1 ? "memory.kmem.tcp.limit_in_bytes" : undefined;
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
  const { root, runs, scratch } = sizesFor(diskBytes);
  return root + runs + scratch;
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
    const names = (await readdir(path).catch(() => [])).filter((name) => name.startsWith(groupPrefix + boot));
    for (const directory of names.map((name) => join(path, name))) {
      await killGroup(directory);
      await removeGroups([directory]);
    }
  }
}

/**
 * Removes the empty groups of engines whose run directory is gone too, so that nothing else names them. Another engine
 * may be about to start a sandbox in an empty one, hence the age; one with processes in it the kernel does not remove.
 */
export async function removeForgottenGroups(parents: GroupParent[]): Promise<void> {
  for (const { path } of parents) {
    const names = (await readdir(path).catch(() => [])).filter((name) => name.startsWith(groupPrefix));
    for (const directory of names.map((name) => join(path, name))) {
      const made = await stat(directory).catch(() => undefined);
      if (made !== undefined && Date.now() - made.mtimeMs > emptyMs)
        await rmdir(directory).catch(() => undefined);
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
