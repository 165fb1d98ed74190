/** The kernel keeps names that a sandbox looked up in vain, also after its end. A watch of the directory goes through all of them. */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { freeNames } from "../../local/engine/free-names.ts";
import { freeableMemoryOf } from "../../local/engine/group-use.ts";
import { findGroupParents } from "../../local/engine/limits.ts";
import { doLater } from "../setup/end-later.ts";
import { lookUpInVain } from "../setup/python-programs.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const MiB = 1024 * 1024;
const parent = (await findGroupParents()).find(({ controllers }) => controllers.includes("memory"));
/** Before Linux 5.19, the kernel frees nothing for a group of version 2. */
const canFree = ["memory.force_empty", "memory.reclaim"].some((file) =>
  existsSync(join(parent?.path ?? "", file)),
);

it.runIf(canFree)("the kernel keeps few names of ended sandboxes", async () => {
  const group = join(parent?.path ?? "", `sandbox-mcp-test-${randomUUID()}`);
  const ended = join(group, "ended");
  mkdirSync(ended, { recursive: true });
  doLater(() => rmdirSync(group));
  const run = `echo $$ > ${ended}/cgroup.procs && exec python3 -c "${lookUpInVain(640_000).join("\n")}"`;
  execFileSync("sh", ["-c", run]);
  await expect.poll(() => (rmdirSync(ended), existsSync(ended))).toBe(false);
  const names = async () => await freeableMemoryOf(group);
  expect(await names()).toBeGreaterThan(256 * MiB);
  // On a busy machine, the kernel moves the names of the ended group to this group a moment later, and can free them only then.
  const freed = async () => {
    await freeNames([], [group]);
    return await names();
  };
  await expect.poll(freed).toBeLessThan(64 * MiB);
});

it("the engine lets the kernel free names again if none were free at the first attempt, but not without end", async () => {
  const group = temporaryDirectory();
  writeFileSync(join(group, "memory.stat"), `slab_reclaimable ${600 * MiB}\n`);
  writeFileSync(join(group, "memory.current"), String(900 * MiB));
  const groups = [group];
  const attempts = [];
  for (let round = 0; round < 4; round++) {
    writeFileSync(join(group, "memory.reclaim"), "");
    await freeNames([], groups);
    attempts.push(readFileSync(join(group, "memory.reclaim"), "utf8").trim());
  }
  // The kernel frees cached files first, so it must free all memory of the group.
  const all = String(900 * MiB);
  expect(attempts).toEqual([all, all, "", ""]);
});
