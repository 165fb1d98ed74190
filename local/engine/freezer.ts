/** What control groups say of the processes in them, and how to pause these. */
import { existsSync, readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Bytes of the kernel's memory that count in the groups. */
export function countedKernelMemory(groups: readonly string[]): number {
  return Math.max(0, ...groups.map(countedIn));
}

function countedIn(group: string): number {
  const version1 = ["memory.kmem.usage_in_bytes", "memory.kmem.tcp.usage_in_bytes"];
  const statistics = readNow(join(group, "memory.stat"));
  // Before Linux 5.18, version 2 has no sum of its kinds.
  const version2 = /^kernel \d/m.test(statistics)
    ? ["kernel", "sock"]
    : ["slab", "kernel_stack", "pagetables", "percpu", "sock"];
  const bytes = [
    ...version1.map((file) => readNow(join(group, file))),
    ...version2.map((name) => new RegExp(`^${name} (\\d+)$`, "m").exec(statistics)?.[1]),
  ];
  return bytes.reduce((sum, value) => sum + Number(value ?? 0), 0);
}

/** The processor time of all processes, in milliseconds. */
export async function processorTime(groups: readonly string[]): Promise<number> {
  const times = groups.map(async (group) => {
    const microseconds = /^usage_usec (\d+)$/m.exec(await read(join(group, "cpu.stat")))?.[1];
    return microseconds === undefined
      ? Number(await read(join(group, "cpuacct.usage"))) / 1e6
      : Number(microseconds) / 1000;
  });
  return Math.max(0, ...(await Promise.all(times)));
}

/** The files that pause processes, of version 2 and 1. A group has at most one of them. */
const STATES = { "cgroup.freeze": ["1", "0"], "freezer.state": ["FROZEN", "THAWED"] } as const;
/** These errors end when another program closes files or frees memory. */
const TEMPORARY = new Set(["EMFILE", "ENFILE", "ENOMEM"]);
const RETRY_MS = 50;

/** Whether the groups can pause their processes and count their memory. */
export function canFreeze(groups: readonly string[]): boolean {
  const has = (name: string) => groups.some((group) => existsSync(join(group, name)));
  return has("memory.stat") && Object.keys(STATES).some(has);
}

/** Unlike a signal to stop, this is not visible to the parents of the processes. */
export async function freeze(groups: readonly string[]): Promise<void> {
  for (const group of groups)
    for (const [name, [frozen]] of Object.entries(STATES)) await write(join(group, name), frozen);
}

/** Tries again until it succeeds: otherwise the processes would be paused forever. */
export async function thaw(groups: readonly string[]): Promise<void> {
  for (const group of groups)
    for (const [name, [, thawed]] of Object.entries(STATES))
      while (TEMPORARY.has((await write(join(group, name), thawed)) ?? "")) await sleep(RETRY_MS);
}

/** @returns the error's code. A group that is gone has no such file. */
async function write(file: string, value: string): Promise<string | undefined> {
  // "r+" never makes a file.
  return await writeFile(file, value, { flag: "r+" }).then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error.code,
  );
}

/** Whether all processes are paused. */
export async function isFrozen(groups: readonly string[]): Promise<boolean> {
  const states = groups.map(
    async (group) =>
      /^frozen 1$/m.test(await read(join(group, "cgroup.events"))) ||
      (await read(join(group, "freezer.state"))) === "FROZEN\n",
  );
  return (await Promise.all(states)).includes(true);
}

function readNow(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

async function read(file: string): Promise<string> {
  return await readFile(file, "utf8").catch(() => "");
}
