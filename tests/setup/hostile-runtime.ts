/**
 * A control server that code in its sandbox has taken over, in place of the way to take it over: it is the real one
 * until there is a file /tmp/attack, whose words say what it does on the next connection.
 */
import { chmodSync, cpSync, mkdtempSync, renameSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { repository } from "./server.ts";

/** A directory for the engine's `runtime` option. */
export function hostileRuntime(): string {
  const directory = mkdtempSync(join(tmpdir(), "hostile-runtime-"));
  // No sandbox is root of the machine.
  chmodSync(directory, 0o755);
  cpSync(join(repository, "local/runtime"), directory, { recursive: true });
  renameSync(join(directory, "main.ts"), join(directory, "honest.ts"));
  cpSync(join(repository, "tests/setup/hostile-control.ts"), join(directory, "main.ts"));
  return directory;
}
