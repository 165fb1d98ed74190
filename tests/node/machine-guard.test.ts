/** When the engine ends no sandbox, because it cannot measure a resource of the machine. */
import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { memoryOf } from "../../local/engine/limits.ts";
import { repository } from "../../local/engine/own-files.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const MiB = 1024 * 1024;

it("memory of the kernel: without free descriptors, it is unknown and not zero", () => {
  const program = [
    `import { kernelMemory } from ${JSON.stringify(join(repository, "local/engine/limits.ts"))}`,
    "import { openSync } from 'node:fs'",
    "console.log(kernelMemory() > 0)",
    "try { while (true) openSync('/dev/null') } catch {}",
    "console.log(kernelMemory())",
  ].join("\n");
  const run = ['ulimit -n 64; exec "$0" --input-type=module -e "$1"', process.execPath, program];
  expect(execFileSync("bash", ["-c", ...run], { encoding: "utf8" })).toBe("true\nundefined\n");
});

it("memory: a group whose file cache cannot be read counts as unknown, so no sandbox is ended for it", async () => {
  const group = temporaryDirectory();
  await writeFile(join(group, "memory.current"), String(100 * MiB));
  expect(await memoryOf(group)).toBe(0);
  await writeFile(join(group, "memory.stat"), `anon 0\nactive_file ${60 * MiB}\ninactive_file 0\n`);
  expect(await memoryOf(group)).toBe(40 * MiB);
});
