/**
 * Ends the sandbox that holds most memory when little of the memory for all sandboxes is left. Files of sandboxes are in memory. When full
 * disks fill the memory of all, the kernel kills programs, perhaps of another sandbox, and that frees no file.
 */
import { join } from "node:path";
import { loadText } from "./host-files.ts";
import { STOPPED_FOR_MEMORY } from "./texts.ts";

const FULL_SHARE = 0.95;
const MIN_CHECK_MS = 10;
const MAX_CHECK_MS = 1000;
/** How fast programs can fill memory, about. The next check comes before they can fill what is free. */
const BYTES_PER_MS = 2 * 1024 * 1024;

interface Member {
  groups: readonly string[];
  /** Resolves when the memory is free. */
  ended: Promise<unknown>;
  end(why: string): void;
}

/** @param groups the control groups of all sandboxes together @returns a function that stops the checks */
export function checkMemory(groups: readonly string[], limit: number, list: () => Member[]): () => void {
  let isStopped = false;
  let timer: NodeJS.Timeout | undefined;
  const check = async () => {
    const free = limit * FULL_SHARE - (await memoryOf(groups));
    if (free < 0) await endLargest(list());
    if (isStopped) return;
    const waitMs = Math.min(MAX_CHECK_MS, Math.max(MIN_CHECK_MS, free / BYTES_PER_MS));
    timer = setTimeout(() => void check(), waitMs).unref();
  };
  void check();
  return () => {
    isStopped = true;
    clearTimeout(timer);
  };
}

async function endLargest(members: Member[]): Promise<void> {
  const sizes = await Promise.all(members.map(async ({ groups }) => await memoryOf(groups)));
  const largest = members[sizes.indexOf(Math.max(...sizes))];
  largest?.end(STOPPED_FOR_MEMORY);
  await largest?.ended;
}

/** The bytes that a group uses, without cached files, which the kernel can drop. 0 without a group that counts memory. */
async function memoryOf(groups: readonly string[]): Promise<number> {
  for (const group of groups) {
    const current = await loadText(join(group, "memory.current"));
    const used = current === "" ? await loadText(join(group, "memory.usage_in_bytes")) : current;
    if (used === "") continue;
    const stat = await loadText(join(group, "memory.stat"));
    // Version 1 also has lines without the groups inside this one. The lines with them follow.
    const cached = new Map(
      [...stat.matchAll(/^(?:total_)?((?:in)?active_file) (\d+)$/gm)].map(([, name, bytes]) => [
        name,
        Number(bytes),
      ]),
    );
    return [...cached.values()].reduce((rest, bytes) => rest - bytes, Number(used));
  }
  return 0;
}
