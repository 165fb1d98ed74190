/** Stops the programs of control groups for a moment. Only version 2 of control groups lets the kernel kill a stopped program. */
import { open } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Turns } from "../../src/shared/turns.ts";
import { readText } from "./host-files.ts";

/** How long the kernel may take to stop programs, in milliseconds. Usually it takes a few. A program that waits for a disk stops later. */
const FREEZE_MS = 100;
const POLL_MS = 2;

/** One at a time stops programs, so that none lets them go on which another has stopped. How long to wait for the others, in milliseconds. */
const turn = new Turns(1);
const TURN_MS = 60_000;
export const takeFreezeTurn = async () => await turn.take(TURN_MS);

const isFrozen = (group: string) => !readText(join(group, "cgroup.events")).includes("frozen 0");

/**
 * Stops all programs of groups while `work` lasts. If the engine dies meanwhile, they end with their sandboxes. Only does the work if the
 * groups are of version 1.
 */
export async function whileFrozen(groups: readonly string[], work: () => Promise<unknown>): Promise<void> {
  // Opens the files first, because later the engine may have no descriptors left.
  const opened = groups.map((group) => open(join(group, "cgroup.freeze"), "r+").catch(() => []));
  const files = (await Promise.all(opened)).flat();
  const set = async (value: string) =>
    await Promise.allSettled(files.map(async (file) => await file.write(value)));
  try {
    await set("1");
    const deadline = performance.now() + FREEZE_MS;
    while (!groups.every(isFrozen) && performance.now() < deadline) await pause(POLL_MS);
    await work();
  } finally {
    await set("0");
    await Promise.allSettled(files.map(async (file) => await file.close()));
  }
}
