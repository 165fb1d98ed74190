/** Finds and signals a run's processes, by process group and by mark (`markOf` in protocol.ts). */
import { attempt } from "./file-error.ts";
import { readdirSync, readlinkSync } from "node:fs";
import { constants, setPriority } from "node:os";
import { procStat, procText, TICK_MS } from "./proc-stat.ts";
import { type KernelProcess, markOf } from "./protocol.ts";

/** How long one scan of /proc is reused, in milliseconds: many runs may end at once. */
const SCAN_CACHE_MS = 25;

interface Process extends KernelProcess {
  parent: number;
  /**
   * Whether the process has ended but its parent has not waited for it. An orphan can stay a zombie, because a container's first
   * process may not wait for it.
   */
  isZombie: boolean;
  group: number;
  /** The number of the process's controlling terminal; 0 for none. */
  terminal: number;
  /** The process's limit of file locks: a run's mark, or "unlimited". Empty if it was not read. */
  limit: string;
  /** Processor time of the process and of its ended children, in milliseconds. */
  cpuMs: number;
}

let lastProcesses: Process[] = [];
let lastReadAt = Number.NEGATIVE_INFINITY;
const engineMark = process.env.SANDBOX_MCP_BARE;

/**
 * An empty environment. If sandboxes have no isolation, it has the variable that marks their processes
 * (local/engine/unisolated.ts).
 */
export const NO_ENV: NodeJS.ProcessEnv = engineMark === undefined ? {} : { SANDBOX_MCP_BARE: engineMark };

/** Finds the processes with a run's mark, in any group or session, without zombies. @param anew whether to read /proc again */
export function findMarked(id: string, anew = false): number[] {
  if (anew) lastReadAt = Number.NEGATIVE_INFINITY;
  return scanProcesses()
    .filter((found) => !found.isZombie && hasRunMark(found, id))
    .map(({ pid }) => pid);
}

export function marksOf(pid: number): (id: string) => boolean {
  const found = processOf(pid, true);
  return (id) => found !== undefined && hasRunMark(found, id);
}

function hasRunMark({ pid, limit }: Process, id: string): boolean {
  return (
    limit === String(markOf(id)) ||
    (!canMark() && procText(`/proc/${pid}/environ`).split("\0").includes(`SANDBOX_MCP_RUN=${id}`))
  );
}

export function groupMembers(leader: number): number[] {
  return scanProcesses()
    .filter((found) => found.group === leader && !found.isZombie)
    .map(({ pid }) => pid);
}

/** Signals each process of a run once: a second SIGTERM would interrupt the process while it handles the first one. */
export function signalRun(id: string, leader: number | undefined, signal: NodeJS.Signals): void {
  lastReadAt = Number.NEGATIVE_INFINITY;
  const others = new Set(findMarked(id));
  if (leader !== undefined) {
    for (const pid of groupMembers(leader)) others.delete(pid);
    send(-leader, signal);
  }
  for (const pid of others) send(pid, signal);
}

export function send(pid: number, signal: NodeJS.Signals): void {
  // Fails if the process is gone, or cannot be signalled.
  attempt(() => process.kill(pid, signal), false);
}

export function isRunning(pid: number): boolean {
  const found = processOf(pid);
  return found !== undefined && !found.isZombie;
}

export function isSame({ pid, started }: KernelProcess): boolean {
  const found = processOf(pid);
  return found !== undefined && !found.isZombie && found.started === started;
}

/** A kernel and its forks, even if they have other marks. The forks cannot work without the kernel. */
export function familyOf(kernel: number): number[] {
  const family = [kernel];
  const program = procText(`/proc/${kernel}/cmdline`);
  for (const member of family)
    for (const { pid, parent } of scanProcesses())
      if (parent === member && procText(`/proc/${pid}/cmdline`) === program) family.push(pid);
  return family;
}

export function ownProcesses(): Set<number> {
  const own = new Set([process.pid]);
  for (let pid = process.ppid; pid > 0 && !own.has(pid); pid = processOf(pid)?.parent ?? 0) own.add(pid);
  return own;
}

/** Makes all other programs, and what they start, wait while our programs need the processors. */
export function lowerPriorities(): void {
  lastReadAt = Number.NEGATIVE_INFINITY;
  const own = ownProcesses();
  for (const { pid } of scanProcesses())
    if (!own.has(pid))
      // Each thread has its own priority.
      for (const thread of attempt(() => readdirSync(`/proc/${pid}/task`), []))
        attempt(() => setPriority(Number(thread), constants.priority.PRIORITY_LOW), undefined);
}

export function processorTimes(without: ReadonlySet<number>): Map<string, number> {
  const others = scanProcesses().filter(({ pid }) => !without.has(pid));
  return new Map(others.map(({ pid, started, cpuMs }) => [`${pid} ${started}`, cpuMs]));
}

/** The major device number of pseudo terminals (Linux: Documentation/admin-guide/devices.txt). */
const PTS_MAJOR = 136;

export function findTerminal(parent: number): string | undefined {
  const children = scanProcesses().filter((found) => found.parent === parent && !found.isZombie);
  const device = children.find(({ terminal }) => ((terminal >> 8) & 0xfff) === PTS_MAJOR)?.terminal;
  // In Linux's encoding, bits 0 to 7 and 20 to 31 are the minor number.
  return device === undefined ? undefined : `/dev/pts/${(device & 0xff) | ((device >>> 12) & 0xfff00)}`;
}

/** The processes whose standard input is this file. */
export function readersOf(path: string): number[] {
  return pids().filter((pid) => attempt(() => readlinkSync(`/proc/${pid}/fd/0`) === path, false));
}

function scanProcesses(): Process[] {
  const now = performance.now();
  if (now - lastReadAt > SCAN_CACHE_MS) {
    lastProcesses = pids().flatMap((pid) => processOf(pid, true) ?? []);
    lastReadAt = performance.now();
  }
  return lastProcesses;
}

/**
 * Whether a process can have the mark, which is a limit. Where limits cannot be set, the variable SANDBOX_MCP_RUN identifies a
 * run's processes. Most processes keep the variable.
 */
function canMark(): boolean {
  mayMark ??= processOf(process.pid, true)?.limit === "unlimited";
  return mayMark;
}
let mayMark: boolean | undefined;

function processOf(pid: number, withLimit = false): Process | undefined {
  const fields = procStat(pid);
  if (fields === undefined) return undefined;
  const [state = "Z", parent, processGroup, , terminal] = fields;
  const limit = withLimit ? (/^Max file locks +(\S+)/m.exec(procText(`/proc/${pid}/limits`))?.[1] ?? "") : "";
  return {
    pid,
    parent: Number(parent),
    started: Number(fields[19]),
    isZombie: /[ZX]/.test(state),
    group: Number(processGroup),
    terminal: Number(terminal),
    limit,
    cpuMs: fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) * TICK_MS, 0),
  };
}

export function pids(): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid);
}
