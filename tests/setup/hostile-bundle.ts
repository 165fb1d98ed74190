/**
 * A control server that code in its sandbox has taken over, in place of the way to take it over: it is the real one
 * until there is a file /tmp/attack, whose words say what it does on the next connection.
 */
import { chmodSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bundleProgram } from "../../scripts/bundle-sandboxd.ts";
import { repository } from "./server.ts";

/** A bundle for the engine's `control` option. */
export async function hostileControl(): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "hostile-control-"));
  // No sandbox is root of the machine.
  chmodSync(directory, 0o755);
  const bundle = join(directory, "control.cjs");
  await bundleProgram(join(repository, "tests/setup/hostile-control.ts"), bundle);
  return bundle;
}
