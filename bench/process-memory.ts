/** Processes and their memory, from /proc. */
import { writeFileSync } from "node:fs";
import { procText } from "../container/sandboxd/proc-stat.ts";
import { type Process, statusNumber, tree } from "../tests/setup/processes.ts";

/** All processes of the engine's sandbox that has one with such a command line. */
export function processesWith(command: RegExp, enginePID: number): Process[] {
  const children = tree(enginePID).filter(({ parent }) => parent === enginePID);
  const sandboxes = children.map(({ pid }) => tree(pid));
  return sandboxes.find((members) => members.some((member) => command.test(member.command))) ?? [];
}

interface SandboxProcesses {
  /** The control server, `local/runtime/main.ts`. */
  control: number;
  sandboxd: number;
}

/** Finds a sandbox by the process that `backgroundCommand(marker)` started there. Returns the server's processes in it. */
export function processesOfSandbox(marker: string, enginePID: number): SandboxProcesses {
  const members = processesWith(new RegExp(marker), enginePID);
  const idOf = (name: string) => members.find(({ command }) => command === name)?.pid ?? NaN;
  return { control: idOf("sbx-control"), sandboxd: idOf("sbxd") };
}

/** Returns a command that starts a background process with `marker` on its command line. */
export function backgroundCommand(marker: string): string {
  return `exec -a ${marker} sleep 3600 >/dev/null 2>&1 &`;
}

/** The most memory that a process has used since `resetPeak`, in MiB. */
export function peakMiB(pid: number): number {
  return statusNumber(pid, "VmHWM") / 1024;
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
