/** The system call filter on a machine where core dumps would leave the sandbox: to a program that runs as root, or to a path. */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, vi } from "vitest";
import { seccompFilter } from "../../local/engine/seccomp.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const { readText } = vi.hoisted(() => ({ readText: vi.fn<(file: string) => string>() }));
vi.mock(import("../../local/engine/host-files.ts"), async (original) => ({
  ...(await original()),
  readText,
}));

const PATTERNS = ["|/usr/lib/systemd/systemd-coredump %P", "/var/crash/core.%p"];

it.each(PATTERNS)("a program cannot change the limit of one byte, which prevents a dump to %s", (pattern) => {
  readText.mockReturnValue(`${pattern}\n`);
  const filter = join(temporaryDirectory(), "filter");
  writeFileSync(filter, seccompFilter({ ids: 1, hasHostDirectory: false }) ?? Buffer.alloc(0));
  const program = [
    "import resource",
    "core = resource.RLIMIT_CORE",
    "resource.setrlimit(core, (0, 1))",
    "try: resource.prlimit(0, core, (0, 1))",
    "except PermissionError: print('refused')",
    "print(resource.getrlimit(core), resource.prlimit(0, core))",
  ].join("\n");
  const script = 'exec prlimit --core=1:1 -- bwrap --dev-bind / / --seccomp 9 -- python3 -c "$1" 9<"$0"';
  const { stdout, stderr } = spawnSync("/bin/bash", ["-c", script, filter, program], { encoding: "utf8" });
  expect([stdout.trim().split("\n"), stderr]).toEqual([["refused", "(1, 1) (1, 1)"], ""]);
});
