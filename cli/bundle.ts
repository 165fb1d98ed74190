/** The local Worker as one JavaScript module, made by wrangler as for a deployment. */
import { execFile } from "node:child_process";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const require = createRequire(import.meta.url);

export interface Module {
  name: string;
  path: string;
  contents: string;
}

/** Stops telemetry and update checks of wrangler and miniflare, and keeps their files in `directory`. */
export function quietWrangler(directory: string): Record<string, string> {
  return {
    WRANGLER_SEND_METRICS: "false",
    WRANGLER_SEND_ERROR_REPORTS: "false",
    // Without the banner, wrangler does not look up its newest version in the registry.
    WRANGLER_HIDE_BANNER: "true",
    WRANGLER_LOG: "error",
    WRANGLER_LOG_PATH: join(directory, "logs"),
    WRANGLER_CACHE_DIR: join(directory, "cache"),
    DO_NOT_TRACK: "1",
  };
}

/**
 * @param config The wrangler configuration file.
 * @param directory For the result; its earlier content is deleted.
 * @throws Error with wrangler's output when the Worker does not build
 */
export async function bundle(config: string, directory: string): Promise<Module> {
  rmSync(directory, { recursive: true, force: true });
  const wrangler = join(dirname(require.resolve("wrangler/package.json")), "bin/wrangler.js");
  const output = join(directory, "worker");
  try {
    await run(process.execPath, [wrangler, "deploy", "--dry-run", "--outdir", output, "--config", config], {
      cwd: dirname(config),
      env: { ...process.env, ...quietWrangler(directory), NO_COLOR: "1" },
    });
  } catch (error) {
    const detail = error instanceof Error && "stderr" in error ? String(error.stderr) : String(error);
    throw new Error(`The Worker does not build:\n${detail.trim()}`, { cause: error });
  }
  const name = readdirSync(output).find((file) => file.endsWith(".js"));
  if (name === undefined) throw new Error(`wrangler left no module in ${output}.`);
  const path = join(output, name);
  return { name, path, contents: readFileSync(path, "utf8") };
}
