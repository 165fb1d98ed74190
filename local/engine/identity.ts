/** Identifies a process so that a later one with the same number is not mistaken for it, even after the machine restarts. */
import { setTimeout as pause } from "node:timers/promises";
import { procStat } from "../../container/sandboxd/proc-stat.ts";
import { attempt } from "../../container/sandboxd/file-error.ts";
import { readText } from "./host-files.ts";

/** `<process id> <start time in clock ticks since boot> <the machine's boot id>` */
export type Identity = string;
/** How long the kernel may take to remove a killed process, in milliseconds. The kernel frees the process's memory first. */
const deathMs = 5000;

/** @returns undefined if the process does not exist or is a zombie */
export function identify(pid: number): Identity | undefined {
  const fields = procStat(pid);
  if (fields === undefined || fields[0] === "Z" || fields[0] === "X") return undefined;
  return `${pid} ${fields[19]} ${readText("/proc/sys/kernel/random/boot_id").trim()}`;
}

export function isAlive(identity: Identity): boolean {
  return identify(Number.parseInt(identity, 10)) === identity;
}

/** Kills the identified process, if it still runs. If it is a pid namespace's first process, the whole namespace ends. */
export function kill(identity: Identity): void {
  if (!isAlive(identity)) return;
  // The process may be gone already.
  attempt(() => process.kill(Number.parseInt(identity, 10), "SIGKILL"), false);
}

export async function endProcess(identity: Identity): Promise<void> {
  const deadline = Date.now() + deathMs;
  kill(identity);
  while (isAlive(identity) && Date.now() < deadline) await pause(5);
}
