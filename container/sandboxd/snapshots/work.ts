/** Whether a sandbox's processes were active: an idle one has changed no files. */
import { readFileSync, readdirSync } from "node:fs";

/** Where `/proc/PID/stat` has the processor time of a process and of its children that have ended, behind its name. */
const TIMES = [11, 15] as const;

/** Changes when another process has written or used the processor. Takes some milliseconds. */
export function workOfOthers(): string {
  let written = 0;
  let ticks = 0;
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      for (const time of stat
        .slice(stat.lastIndexOf(")") + 2)
        .split(" ")
        .slice(...TIMES))
        ticks += Number(time);
      written += Number(/^wchar: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, "latin1"))?.[1]);
    } catch {
      // It has ended: its parent has its time.
    }
  }
  return `${written} ${ticks}`;
}
