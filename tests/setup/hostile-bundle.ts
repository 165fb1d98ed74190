/**
 * A control server that acts as if code in its sandbox had replaced it. It is the real one
 * until the file /tmp/attack exists. The words in that file select the attack on the next connection.
 */
import { chmodSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bundleProgram } from "../../scripts/bundle-sandboxd.ts";
import { repository } from "./server.ts";

/** A bundle for the engine's `control` option. */
export async function hostileControl(): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "hostile-control-"));
  // The user of a sandbox, which is not root on the host, must be able to read it.
  chmodSync(directory, 0o755);
  const bundle = join(directory, "control.cjs");
  await bundleProgram(join(repository, "tests/setup/hostile-control.ts"), bundle);
  return bundle;
}
