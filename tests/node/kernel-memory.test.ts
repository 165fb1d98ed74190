/** Kernel memory that no control group counts, but that the limit of memory for all sandboxes must include. */
import { randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { countOf, findGroupParents, kernelMemoryOf, memoryOf } from "../../local/engine/limits.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { findProcess } from "../setup/processes.ts";

const isMemoryLimited = (await findGroupParents()).some(({ controllers }) => controllers.includes("memory"));

/** The control groups of a process. */
function groupsOf(pid: number | undefined): string[] {
  const lines = readFileSync(`/proc/${pid}/cgroup`, "utf8").matchAll(/^\d+:(.*):(.*)$/gm);
  return Array.from(lines, ([, controllers = "", path = ""]) => join("/sys/fs/cgroup", controllers, path));
}

it.runIf(isMemoryLimited)(
  "directories in each other count with the memory for the lists of their entries",
  async () => {
    const sandbox = await TestSandbox.start(endLater(await startTestEngine()));
    const sleeper = `sleep 86400.${randomInt(1e9)}`;
    await sandbox.run(`setsid ${sleeper} >/dev/null 2>&1 &`);
    await expect.poll(() => findProcess(sleeper)).toBeDefined();
    const groups = groupsOf(findProcess(sleeper)?.pid);
    const measure = async () => ({
      memory: await countOf(groups, memoryOf),
      kernel: await countOf(groups, kernelMemoryOf),
    });
    const before = await measure();
    const nest = ["import os", "for _ in range(60_000): os.mkdir('one'); os.chdir('one')", "print('made')"];
    expect((await sandbox.python(nest)).stdout).toBe("made");
    const after = await measure();
    // Measured: 960 bytes of a directory are counted, and 286 are not.
    expect(after.memory - before.memory).toBeGreaterThan(1.2 * (after.kernel - before.kernel));
  },
);
