/** The local Worker's modules and settings, built by wrangler as for a deployment. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import type * as WranglerModule from "wrangler";
import { attempt } from "../container/sandboxd/file-error.ts";
import { bundlePanel } from "../scripts/bundle-panel.ts";
import { isPackaged, root } from "./program-files.ts";
import { noModule, scratchUnwritable, workerNotBuilt } from "./texts.ts";

const run = promisify(execFile);
const require = createRequire(import.meta.url);

interface Module {
  type: "ESModule";
  path: string;
  contents: string;
}

/** wrangler's configuration for miniflare, without bindings, which contain secrets, and without paths of sources. */
interface Settings {
  name: WranglerModule.Unstable_Config["name"];
  vars: WranglerModule.Unstable_Config["vars"];
  worker: Omit<
    WranglerModule.Unstable_MiniflareWorkerOptions["workerOptions"],
    "modulesRules" | "bindings" | "rootPath"
  >;
}

/** A built Worker. wrangler bundles all modules into one. */
interface BuiltWorker {
  modules: Module[];
  settings: Settings;
}

export function wranglerProgram(): string {
  return join(dirname(require.resolve("wrangler/package.json")), "bin/wrangler.js");
}

/** Disables telemetry and update checks of wrangler and miniflare, and stores their files in `directory`. */
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
 * @param directory for wrangler's temporary files, and for the result if it cannot be cached
 * @throws Error with wrangler's output
 */
export async function bundle(config: string, directory: string): Promise<BuiltWorker> {
  if (isPackaged) return readBuild(join(dirname(config), BUILT));
  rmSync(directory, { recursive: true, force: true });
  let cachedBuild = join(CACHE_DIRECTORY, keyOf(config));
  if (!existsSync(cachedBuild)) {
    // The panel is one of the Worker's sources, so it is bundled first.
    await bundlePanel();
    cachedBuild = join(CACHE_DIRECTORY, keyOf(config));
  }
  if (!existsSync(cachedBuild)) {
    if (!isWritable()) {
      const output = join(directory, BUILT);
      await build(config, directory, output);
      return readBuild(output);
    }
    const output = `${cachedBuild}.${process.pid}`;
    await build(config, directory, output);
    deleteOldBuilds();
    try {
      renameSync(output, cachedBuild);
    } catch (error) {
      // Another process has built the same Worker at the same time.
      if (!existsSync(cachedBuild)) throw error;
      rmSync(output, { recursive: true });
    }
  }
  return readBuild(cachedBuild);
}

/** The directory of this clone's cached builds. A build takes as much processor time as the rest of a start. */
export const CACHE_DIRECTORY = join(root, "node_modules/.cache/sandbox-mcp/workers");

/** A new build deletes builds older than this, in milliseconds. Another process may be about to read a younger build. */
const KEEP_MS = 3_600_000;

/** The Worker's sources outside the directory of its configuration. */
const SOURCES = [
  "src",
  "panel",
  "cli/bundle.ts",
  "scripts/bundle-panel.ts",
  "local",
  "container",
  "package.json",
  "node_modules/.package-lock.json",
];

/** Names a build after its sources: their paths, sizes and modification times. */
export function keyOf(config: string): string {
  const hash = createHash("sha256").update(config);
  // A configuration in a subdirectory has further sources beside it.
  const ownSources = dirname(config) === root ? config : dirname(config);
  for (const source of [...SOURCES.map((name) => join(root, name)), ownSources]) {
    const files = statSync(source).isDirectory()
      ? readdirSync(source, { recursive: true, encoding: "utf8" }).toSorted()
      : [""];
    for (const file of files) {
      // Skips wrangler's temporary files beside a configuration, and programs that were built from the sources.
      if (file.startsWith(".wrangler") || file.split("/").includes("dist")) continue;
      const found = statSync(join(source, file), { throwIfNoEntry: false });
      // Skips directories, because temporary files change their times. Also skips files that are already gone.
      if (!found?.isFile()) continue;
      hash.update(`${source}/${file}\0${found.size}\0${found.mtimeMs}\0`);
    }
  }
  return hash.digest("hex").slice(0, 32);
}

/** Whether builds can be cached. The clone may belong to another user. */
export function isWritable(): boolean {
  return attempt(() => {
    mkdirSync(CACHE_DIRECTORY, { recursive: true });
    accessSync(CACHE_DIRECTORY, constants.W_OK);
    return true;
  }, false);
}

function deleteOldBuilds(): void {
  for (const name of readdirSync(CACHE_DIRECTORY)) {
    const path = join(CACHE_DIRECTORY, name);
    const since = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Infinity;
    if (Date.now() - since > KEEP_MS) rmSync(path, { recursive: true, force: true });
  }
}

/** @throws {UserError} if wrangler cannot write its temporary files next to the configuration */
function requireScratch(config: string): void {
  const scratch = join(dirname(config), ".wrangler/tmp");
  try {
    mkdirSync(scratch, { recursive: true });
    accessSync(scratch, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw scratchUnwritable(scratch, error);
  }
}

async function build(config: string, directory: string, output: string): Promise<void> {
  requireScratch(config);
  try {
    await run(
      process.execPath,
      [wranglerProgram(), "deploy", "--dry-run", "--outdir", output, "--config", config],
      { cwd: dirname(config), env: { ...process.env, ...quietWrangler(directory), NO_COLOR: "1" } },
    );
  } catch (error) {
    const detail = error instanceof Error && "stderr" in error ? String(error.stderr) : String(error);
    throw new Error(workerNotBuilt(detail), { cause: error });
  }
  writeFileSync(join(output, SETTINGS), JSON.stringify(readSettings(config)));
}

/** Called only for a new build, because loading wrangler takes a second of processor time. */
function readSettings(config: string): Settings {
  const wrangler: typeof WranglerModule = require("wrangler");
  const { name, vars } = wrangler.unstable_readConfig({ config });
  // The bindings also contain the secrets of .dev.vars.
  const {
    modulesRules: _,
    bindings: __,
    rootPath: ___,
    ...worker
  } = wrangler.unstable_getMiniflareWorkerOptions(config).workerOptions;
  return { name, vars, worker };
}

export const SETTINGS = "settings.json";

/** The package's prebuilt Worker, next to its configuration. */
export const BUILT = "worker";

function readBuild(output: string): BuiltWorker {
  const paths = readdirSync(output).map((file) => join(output, file));
  const main = paths.find((path) => path.endsWith(".js"));
  if (main === undefined) throw noModule(output);
  const modules: Module[] = [{ type: "ESModule", path: main, contents: readFileSync(main, "utf8") }];
  return { modules, settings: JSON.parse(readFileSync(join(output, SETTINGS), "utf8")) };
}
