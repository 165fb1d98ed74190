/** What control groups say of the processes in them, and how to pause these. */
import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

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

/** Unlike a signal to stop, this is not visible to the parents of the processes. */
export async function setFrozen(groups: readonly string[], frozen: boolean): Promise<void> {
  for (const group of groups) {
    // Only one of the files exists, of version 2 or 1. "r+" never makes a file.
    await writeFile(join(group, "cgroup.freeze"), frozen ? "1" : "0", { flag: "r+" }).catch(() => undefined);
    await writeFile(join(group, "freezer.state"), frozen ? "FROZEN" : "THAWED", { flag: "r+" }).catch(
      () => undefined,
    );
  }
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
