import { attempt } from "./file-error.ts";
import { readFileSync } from "node:fs";

/**
 * The fields of /proc/PID/stat (proc(5)) after the process's name, which may contain any character. Undefined if the process is
 * gone.
 */
export function procStat(pid: number): string[] | undefined {
  const stat = attempt(() => readFileSync(`/proc/${pid}/stat`, "latin1"), undefined);
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
}

/**
 * The length of a clock tick in /proc, in milliseconds. It is the same on all machines, whatever the frequency of the kernel's
 * timer.
 */
export const TICK_MS = 10;
