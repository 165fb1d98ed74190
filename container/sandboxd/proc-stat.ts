import { attempt } from "./file-error.ts";
import { readFileSync } from "node:fs";

/** The text of a file in /proc; empty if it cannot be read, because its process may end at any time. */
export function procText(path: string): string {
  return attempt(() => readFileSync(path, "latin1"), "");
}

/**
 * The fields of /proc/PID/stat (proc(5)) after the process's name, which may contain any character. Undefined if the process is
 * gone.
 */
export function procStat(pid: number): string[] | undefined {
  const stat = procText(`/proc/${pid}/stat`);
  return stat === "" ? undefined : stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

/** A clock tick in /proc. It is the same on all machines, and does not depend on the frequency of Linux's timer. */
export const TICK_MS = 10;
