/**
 * Builds the production Worker as `wrangler deploy` would, but without Docker, an account or the network. Prints the Worker's
 * size, and fails if the size is over the limit, or if the guide to deployment shows another size.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runFile } from "../local/engine/host-programs.ts";
import { quietWrangler, wranglerProgram } from "../cli/bundle.ts";
import { root } from "../cli/program-files.ts";

/** The limit of the Worker's compressed size, in KiB. Cloudflare's limit is 3072, but a larger Worker takes longer to start. */
const LIMIT = 571;

/** The page that shows the size in the output of a deployment, and how much that size may differ from the present one, in KiB. */
const PAGE = "docs/guides/deploy.md";
const PAGE_TOLERANCE = 10;

const directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-dry-run-"));
const flags = ["deploy", "--dry-run", "--containers-rollout", "none", "--outdir", join(directory, "worker")];

try {
  const { stdout } = await runFile(process.execPath, [wranglerProgram(), ...flags], {
    cwd: root,
    env: { ...process.env, ...quietWrangler(directory), WRANGLER_LOG: "log", NO_COLOR: "1" },
  });
  const [, total, compressed] = /Total Upload: ([\d.]+) KiB \/ gzip: ([\d.]+) KiB/.exec(stdout) ?? [];
  if (compressed === undefined) throw new Error(`wrangler did not print the size of the Worker:\n${stdout}`);
  console.log(`The Worker's bundle: ${total} KiB, ${compressed} KiB with gzip (limit ${LIMIT}).`);
  if (Number(compressed) > LIMIT) process.exitCode = 1;
  const [, shown] = /gzip: ([\d.]+) KiB/.exec(readFileSync(join(root, PAGE), "utf8")) ?? [];
  if (!(Math.abs(Number(shown) - Number(compressed)) <= PAGE_TOLERANCE)) {
    console.error(`${PAGE} shows a size of ${shown} KiB with gzip. Replace it with ${compressed} KiB.`);
    process.exitCode = 1;
  }
} catch (error) {
  const output = error instanceof Error && "stderr" in error ? String(error.stderr) : "";
  console.error(output === "" ? error : output);
  process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
