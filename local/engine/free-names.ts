/** Frees the names of files that the kernel keeps for sandboxes, also for ended ones. */
import { join } from "node:path";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { runHost } from "./host-programs.ts";
import { countOf, freeableMemoryOf, groupsWith, hasFile, memoryWithCacheOf } from "./group-use.ts";

/**
 * How many bytes of names the kernel may keep for a sandbox, besides those of its files. A name takes about 400 bytes. For a call that
 * watches a directory (inotify), the kernel goes through all names that it keeps in this directory, also those that do not exist, and no
 * other program runs on the processor meanwhile.
 */
const MAX_NAME_BYTES = 128 * 1024 * 1024;

/** How many bytes of names and other memory of the kernel it may keep for all sandboxes together. It keeps names of ended sandboxes too. */
const MAX_ALL_NAME_BYTES = 2 * MAX_NAME_BYTES;

/** How often the engine looks at this memory, in milliseconds: in version 2 of control groups, this takes longer than most of its checks. */
export const NAMES_INTERVAL_MS = 1000;

/** What could not be freed, in bytes: the names of the sandbox's files, and other memory of the kernel. */
const kept = new WeakMap<object, number>();

/** @param engineGroups the groups of all sandboxes together */
export async function freeNames(sandboxes: EngineSandbox[], engineGroups: readonly string[]): Promise<void> {
  await Promise.all([
    ...sandboxes.map((sandbox) => freeNamesIn(sandbox.chargedGroups, MAX_NAME_BYTES, sandbox)),
    freeNamesIn(engineGroups, MAX_ALL_NAME_BYTES),
  ]);
}

async function freeNamesIn(all: readonly string[], most: number, owner: object = all): Promise<void> {
  const groups = groupsWith("memory.stat", all);
  const bytes = await countOf(groups, freeableMemoryOf);
  const keptBytes = kept.get(owner) ?? 0;
  if (bytes >= keptBytes + most) {
    const results = await Promise.all(groups.map((group) => reclaim(group)));
    // Of the rest, the kernel may free some later: it frees names of an ended group only after it has moved them to the group above.
    if (results.every((result) => result === "done"))
      kept.set(owner, (keptBytes + (await countOf(groups, freeableMemoryOf))) / 2);
  } else if (bytes < keptBytes) {
    kept.set(owner, bytes);
  }
}

/**
 * Lets the kernel free names and cached files of a group. That takes seconds for a million names, so a program with low priority does it.
 * In version 2 of control groups, it asks for all memory of the group, because the kernel frees cached files before most names.
 * @returns "impossible" before Linux 5.19 in version 2 of control groups, and "late" if the program took too long, so that the kernel may
 * free more later: other programs of the machine can cause that
 */
export async function reclaim(group: string, niceness = 19): Promise<"done" | "late" | "impossible"> {
  const file = ["memory.force_empty", "memory.reclaim"].find((name) => hasFile(group, name));
  if (file === undefined) return "impossible";
  const value = file === "memory.reclaim" ? memoryWithCacheOf(group) : 0;
  const write = ["sh", "-c", 'echo "$1" > "$0"', join(group, file), String(value)];
  return await runHost("nice", ["-n", String(niceness), ...write]).then(
    () => "done",
    // The kernel reports an error if it can free less.
    (error: Error) => ((error.cause as { killed?: boolean }).killed === true ? "late" : "done"),
  );
}
