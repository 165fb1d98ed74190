/** The local Worker as its modules, made by wrangler as for a deployment. */
import { execFile } from "node:child_process";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { isPackaged } from "./places.ts";

const run = promisify(execFile);
const require = createRequire(import.meta.url);

export interface Module {
  type: "ESModule" | "CompiledWasm";
  path: string;
  contents: string | Uint8Array<ArrayBuffer>;
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
 * @param directory For the result; its earlier content is deleted. A package has the result already.
 * @returns the module that is the Worker first, then what it imports
 * @throws Error with wrangler's output when the Worker does not build
 */
export async function bundle(config: string, directory: string): Promise<Module[]> {
  const built = join(dirname(config), BUILT);
  if (isPackaged) return modulesIn(built);
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
  return modulesIn(output);
}

/** Where the package has the Worker that was built with it, beside its configuration. */
export const BUILT = "worker";

function modulesIn(output: string): Module[] {
  const paths = readdirSync(output).map((file) => join(output, file));
  const main = paths.find((path) => path.endsWith(".js"));
  if (main === undefined) throw new Error(`wrangler left no module in ${output}.`);
  const wasm = paths.filter((path) => path.endsWith(".wasm"));
  return [
    { type: "ESModule", path: main, contents: readFileSync(main, "utf8") },
    ...wasm.map((path): Module => ({
      type: "CompiledWasm",
      path,
      contents: new Uint8Array(readFileSync(path)),
    })),
  ];
}
