import { readFileSync } from "node:fs";

/** The fields of /proc/PID/stat (proc(5)) after the process's name, which may contain anything; undefined if the process is gone. */
export function procStat(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}
