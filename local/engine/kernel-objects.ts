/** Counts objects of the kernel: those of a kind on the machine, and those of the processes of sandboxes. */
import { join } from "node:path";
import { arch } from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import { procStat } from "../../container/sandboxd/proc-stat.ts";
import { waitAtMost } from "../../src/shared/timers.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { takeFreezeTurn, whileFrozen } from "./freeze.ts";
import { readText } from "./host-files.ts";
import { runFile, systemPath } from "./host-programs.ts";
import { readSetting } from "./limits.ts";
import { repository } from "./own-files.ts";
import { countBlocks } from "./socket-usage.ts";

/** The objects of a sandbox's processes. */
export interface KernelObjects {
  /** Mappings of memory. Memory that several processes share (CLONE_VM) counts for each of them. */
  mappings: number;
  /** How many bytes fit into the open pipes. */
  pipeBytes: number;
  /** The most pages of files that wait in pipes and Unix sockets, or are locked (mlock). Only a count that accepts all connections is complete. */
  keptPages: number;
  /**
   * How many files wait in sockets (SCM_RIGHTS) and are not counted here, for example in connections that no program has accepted, if the
   * count did not accept them. They can be pipes, locked files, or sockets in which thousands of files wait.
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
  /** Timers that are files (timerfd), also those that a program can still start. A copy of a descriptor counts again. */
  timers: number;
}

/**
 * Which Unix connections that no program has accepted the count accepts, and so breaks: none, those to sockets in whose connections files
 * wait, or all.
 */
type Accepted = "none" | "files" | "all";

export const VERY_MANY = 1e12;

/** The most bytes of a pipe. Linux allows at most 2 GiB. */
const MAX_PIPE_BYTES = Math.min(readSetting("fs/pipe-max-size"), 2 ** 31);

/** The program that counts the objects of a group's processes. */
export const PROGRAM = join(repository, "local/engine/count-objects.pl");
/** What the program prints if there are too many objects to count. */
const LATE = "late";
/** The result of a program that waited for too long. */
const STUCK = "stuck";

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
  return waiting < MAX_WAITING_LOOKS ? "" : STUCK;
}

/**
 * The niceness of the programs that count a principal's sandboxes, so that all together get about as much processor time as one thread of
 * the server: the kernel gives a program 1.25 times as much for each level less. With the same niceness for all, a principal with eight
 * sandboxes stopped the programs of a neighbour for up to 6 s.
 */
const nicenessFor = (programs: number) => Math.round(Math.log(programs) / Math.log(1.25));

const allOf = (count: number): KernelObjects => ({
  mappings: count,
  pipeBytes: count,
  keptPages: count,
  waiting: count,
  locks: count,
  watches: count,
  directories: count,
  timers: count,
});

function objectsIn(counts: string): KernelObjects {
  if (counts === "") return allOf(0);
  if (counts === STUCK) return allOf(VERY_MANY);
  // To look again would not help.
  return counts === LATE ? { ...allOf(VERY_MANY), waiting: 0 } : (JSON.parse(counts) as KernelObjects);
}

async function countIn(group: string, niceness: number, accept: Accepted): Promise<KernelObjects> {
  if (group === "") return allOf(0);
  const command = [PROGRAM, arch, String(MAX_PIPE_BYTES), accept, join(group, "cgroup.procs")];
  // The programs for all sandboxes run at once, because a sandbox with few objects must not delay the count of one with many.
  return objectsIn(await outputOf("nice", ["-n", String(niceness), "perl", ...command]).catch(() => ""));
}

/**
 * Counts the objects of sandboxes. Stops all sandboxes of a principal until they are counted: their programs could pass descriptors on to
 * new processes, or take more memory while the count of another sandbox lasts.
 */
async function countObjects(
  sandboxes: EngineSandbox[],
  accept: Accepted,
): Promise<Map<EngineSandbox, KernelObjects>> {
  const counts = new Map<EngineSandbox, KernelObjects>();
  const endTurn = await takeFreezeTurn();
  if (endTurn === undefined) return counts;
  const count = async (sandbox: EngineSandbox, niceness: number) =>
    void counts.set(sandbox, await countIn(sandbox.groups[0] ?? "", niceness, accept));
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

export type ObjectsOf = (sandbox: EngineSandbox, accept?: Accepted) => Promise<KernelObjects>;

/** Returns a function that counts the objects of all these sandboxes at its first call of a kind. */
export function lazyCount(sandboxes: () => EngineSandbox[]): ObjectsOf {
  const counts = new Map<Accepted, ReturnType<typeof countObjects>>();
  return async (sandbox, accept = "none") => {
    const counting = counts.get(accept) ?? countObjects(sandboxes(), accept);
    counts.set(accept, counting);
    return (await counting).get(sandbox) ?? allOf(0);
  };
}

/** For how long files may wait in a sandbox's sockets, and the pause between two looks, in milliseconds. */
const WAITING_MS = 500;
const BETWEEN_LOOKS_MS = 100;

/**
 * The objects of a sandbox, also those that wait in connections that no program has accepted. A program that is about to accept them does
 * so within moments, so a count breaks such connections only if files still wait later. If it does not see these files either, for example
 * because they wait in many sockets in each other, the sandbox counts as one with very many objects.
 */
export async function countHidden(
  sandbox: EngineSandbox,
  objectsOf: ObjectsOf,
  accept?: Accepted,
): Promise<KernelObjects> {
  let objects = await objectsOf(sandbox, accept);
  const acceptsAt = performance.now() + WAITING_MS;
  for (let isLast = false; objects.waiting > 0 && objects.waiting < VERY_MANY && !isLast;) {
    await pause(BETWEEN_LOOKS_MS);
    isLast = performance.now() >= acceptsAt;
    // A count that accepts fewer connections would be no complete one.
    objects = await lazyCount(() => [sandbox])(sandbox, accept ?? (isLast ? "files" : "none"));
  }
  return objects.waiting > 0 ? { ...allOf(VERY_MANY), waiting: objects.waiting } : objects;
}

/** The kernel keeps a file in pieces of up to this size, and a whole piece as long as a pipe or a socket has a page of it, or one is locked. */
const FILE_PIECE_BYTES = 2 * 1024 * 1024;

/**
 * An upper bound of the cached files that a sandbox keeps, except by TCP and UDP; 0 if the program that counts waited for too long. While the
 * kernel looks for memory that it can free, the count of a sandbox that needs memory waits, too.
 */
export const boundKeptFiles = ({ keptPages, waiting }: KernelObjects): number =>
  waiting < VERY_MANY ? keptPages * FILE_PIECE_BYTES : 0;

/**
 * An upper bound of the cached files that a sandbox keeps by TCP and UDP. Looks several times, because a program reads most data at once, but
 * not data that keeps a file.
 */
export async function boundFilesInQueues(sandbox: EngineSandbox): Promise<number> {
  let blocks = Infinity;
  for (let looks = 0; looks < WAITING_MS / BETWEEN_LOOKS_MS && blocks > 0; looks += 1) {
    if (looks > 0) await pause(BETWEEN_LOOKS_MS);
    blocks = Math.min(blocks, await countBlocks(sandbox));
  }
  return blocks * FILE_PIECE_BYTES;
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
