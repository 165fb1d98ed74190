/** Processes and their memory, from /proc. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { procStat, procText } from "../container/sandboxd/proc-stat.ts";

export function children(pid: number): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((child) => child > 0 && Number(procStat(child)?.[1]) === pid);
}

/** The ids of a process's descendants, only those whose command line matches. */
export function descendants(pid: number, pattern: RegExp): number[] {
  const found = new Set<number>();
  for (const child of children(pid)) {
    if (pattern.test(commandLine(child))) found.add(child);
    for (const below of descendants(child, pattern)) found.add(below);
  }
  return [...found];
}

/** The ids of the server's processes in one sandbox. */
interface SandboxProcesses {
  /** The control server, `local/runtime/main.ts`. */
  control: number;
  sandboxd: number;
}

/** Finds a sandbox by the process that `backgroundCommand(marker)` started there. Returns the server's processes in it. */
export function processesOfSandbox(marker: string, enginePID: number): SandboxProcesses {
  const first = children(enginePID).find((child) => descendants(child, new RegExp(marker)).length > 0) ?? NaN;
  return {
    control: descendants(first, /^sbx-control\s*$/)[0] ?? NaN,
    sandboxd: descendants(first, /^sbxd\s*$/)[0] ?? NaN,
  };
}

/** Returns a command that starts a background process with `marker` on its command line. */
export function backgroundCommand(marker: string): string {
  return `exec -a ${marker} sleep 3600 >/dev/null 2>&1 &`;
}

/** The most memory that a process has used since `resetPeak`, in MiB. */
export function peakMiB(pid: number): number {
  const kilobytes = /^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kilobytes) / 1024;
}

/** The memory of a process, in MiB, with a proportional part of shared pages. 0 if the process has ended. */
export function pssMiB(pid: number): number {
  return Number(/^Pss:\s+(\d+)/m.exec(procText(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0) / 1024;
}

export function resetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
}

/** The most memory that each process uses during the work, in MiB. */
export async function peaks(pids: readonly number[], work: () => Promise<void>): Promise<number[]> {
  for (const pid of pids) resetPeak(pid);
  await work();
  return pids.map(peakMiB);
}

/** The arguments with a space after each; empty for a process that has ended. */
export function commandLine(pid: number): string {
  return procText(`/proc/${pid}/cmdline`).replaceAll("\0", " ");
}
