import { readdirSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { attempt } from "../../container/sandboxd/file-error.ts";
import { procStat } from "../../container/sandboxd/proc-stat.ts";

const GRACE_MS = 5000;

export async function killDescendants(): Promise<void> {
  for (let waited = 0; waited < GRACE_MS; waited += 10) {
    const alive = descendants();
    if (alive.length === 0) return;
    for (const pid of alive) {
      // The process may have ended by itself.
      attempt(() => process.kill(pid, "SIGKILL"), false);
    }
    await pause(10);
  }
}

function descendants(): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    const [state = "X", parent] = procStat(pid) ?? [];
    if (state !== "Z" && state !== "X") parents.set(pid, Number(parent));
  }
  const isBelow = (pid: number): boolean => {
    const parent = parents.get(pid);
    return parent !== undefined && (parent === process.pid || isBelow(parent));
  };
  return [...parents.keys()].filter(isBelow);
}
