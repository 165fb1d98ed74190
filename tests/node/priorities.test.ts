/** The priorities of programs while the last saves are made, in a process namespace of their own. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, it } from "vitest";
import { repository } from "../setup/server.ts";

const PROGRAM = `
  import { spawn } from "node:child_process";
  import { once } from "node:events";
  import { getPriority } from "node:os";
  import { lowerPriorities } from ${JSON.stringify(join(repository, "container/sandboxd/run-processes.ts"))};
  // A shell and a program that it started.
  const shell = spawn("sh", ["-c", "sleep 60 & echo $!; wait"], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(shell.stdout, "data");
  const pids = { own: process.pid, parent: process.ppid, shell: shell.pid, program: Number(line) };
  lowerPriorities();
  console.log(JSON.stringify(Object.entries(pids).map(([name, pid]) => [name, getPriority(pid)])));
  process.kill(pids.program);
`;

it("all programs get the lowest priority, and our own processes keep theirs", () => {
  const namespaces = ["--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--die-with-parent"];
  // A prefix of two commands, so that the shell stays as the parent.
  const run = ["sh", "-c", '"$@"; exit', "sh", process.execPath, "--input-type=module", "-e", PROGRAM];
  const printed = execFileSync("bwrap", [...namespaces, ...run], { encoding: "utf8" });
  expect(Object.fromEntries(JSON.parse(printed))).toEqual({ own: 0, parent: 0, shell: 19, program: 19 });
});
