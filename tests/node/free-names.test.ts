/** The kernel keeps names that a sandbox looked up in vain, also after its end. A watch of the directory goes through all of them. */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { freeNames } from "../../local/engine/free-names.ts";
import { findGroupParents } from "../../local/engine/limits.ts";
import { doLater } from "../setup/end-later.ts";

const MiB = 1024 * 1024;
const parent = (await findGroupParents()).find(({ controllers }) => controllers.includes("memory"));

/** Linux keeps 0.7 KB for each of these names. */
const LOOK_UP = [
  "import os",
  "unique = os.urandom(8).hex()",
  "for number in range(440_000):",
  "  try: os.stat(f'/usr/bin/{unique}.{number:0220}')",
  "  except OSError: pass",
].join("\n");

it.runIf(parent?.version === 1)("the kernel keeps few names of ended sandboxes", async () => {
  const group = join(parent?.path ?? "", `sandbox-mcp-test-${randomUUID()}`);
  const ended = join(group, "ended");
  mkdirSync(ended, { recursive: true });
  doLater(() => rmdirSync(group));
  const run = `echo $$ > ${ended}/cgroup.procs && exec python3 -c "${LOOK_UP}"`;
  execFileSync("sh", ["-c", run]);
  await expect.poll(() => (rmdirSync(ended), existsSync(ended))).toBe(false);
  const names = () => Number(readFileSync(join(group, "memory.kmem.usage_in_bytes"), "utf8"));
  expect(names()).toBeGreaterThan(256 * MiB);
  await freeNames([], [group]);
  expect(names()).toBeLessThan(64 * MiB);
});
