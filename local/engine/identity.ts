/** Names a process so that a later one with the same number is not taken for it, after a restart of the machine neither. */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** `<process id> <start time in clock ticks since boot> <the machine's boot id>` */
export type Identity = string;

/** How long the kernel may take to be done with a process that was killed: it frees all of its memory first. */
const deathMs = 5000;

/** @returns undefined when there is no such process, or only what is left of it for its parent to collect. */
export function identify(pid: number): Identity | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Fields are counted after the name, which may hold anything up to the last parenthesis.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (fields[0] === "Z" || fields[0] === "X") return undefined;
    return `${pid} ${fields[19]} ${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()}`;
  } catch {
    return undefined;
  }
}

export function isAlive(identity: Identity): boolean {
  return identify(Number.parseInt(identity, 10)) === identity;
}

/** Kills a process if it is still the one. The end of a pid namespace's first process ends all of that namespace. */
export function kill(identity: Identity): void {
  if (!isAlive(identity)) return;
  try {
    process.kill(Number.parseInt(identity, 10), "SIGKILL");
  } catch {
    // It is gone already.
  }
}

/** Kills a process and waits until it is gone, for five seconds at most. */
export async function end(identity: Identity): Promise<void> {
  const deadline = Date.now() + deathMs;
  kill(identity);
  while (isAlive(identity) && Date.now() < deadline) await sleep(5);
}
