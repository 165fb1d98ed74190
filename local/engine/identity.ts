/** Identifies a process so that a later one with the same number is not mistaken for it, even after a restart. */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** `<process id> <start time in clock ticks since boot> <the machine's boot id>` */
export type Identity = string;
/** How long the kernel may take to remove a killed process: it frees all memory first. */
const deathMs = 5000;

/** @returns undefined if the process does not exist or is a zombie */
export function identify(pid: number): Identity | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Fields are counted after the name, which may contain anything up to the last parenthesis.
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

/** Kills the identified process, if it still runs. If it is a pid namespace's first process, the whole namespace ends. */
export function kill(identity: Identity): void {
  if (!isAlive(identity)) return;
  try {
    process.kill(Number.parseInt(identity, 10), "SIGKILL");
  } catch {
    // It is gone already.
  }
}

export async function end(identity: Identity): Promise<void> {
  const deadline = Date.now() + deathMs;
  kill(identity);
  while (isAlive(identity) && Date.now() < deadline) await sleep(5);
}
