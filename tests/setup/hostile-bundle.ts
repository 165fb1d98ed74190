/**
 * A control server that acts as if code in its sandbox had replaced it. It behaves normally until the file
 * /tmp/attack exists. That file names the attack on the next connection.
 */
import { chmodSync } from "node:fs";
import { join } from "node:path";
import { bundleProgram } from "../../scripts/bundle-sandboxd.ts";
import { repository } from "./server.ts";
import { temporaryDirectory } from "./temporary.ts";

/** A bundle for the engine's `control` option. */
export async function bundleHostileControl(): Promise<string> {
  const directory = temporaryDirectory();
  // A sandbox's user is not root on the host, and must be able to read the file.
  chmodSync(directory, 0o755);
  const bundle = join(directory, "control.cjs");
  await bundleProgram(join(repository, "tests/setup/hostile-control.ts"), bundle);
  return bundle;
}
