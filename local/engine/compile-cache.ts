/**
 * Node's compile cache, which lets our programs start faster. The engine fills it in a sandbox that no user gets, and then makes
 * it read-only. In a clone of the repository, the engine stores the cache for later starts, because filling it takes 0.2 s of
 * processor time.
 */
import { createHash } from "node:crypto";
import { chmod, chown, cp, mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { CACHE_DIRECTORY, isWritable } from "../../cli/bundle.ts";
import { succeeds } from "../../container/sandboxd/file-error.ts";
import { isPackaged } from "../../cli/program-files.ts";
import { controlProgram, nodeProgram, runtimeDirectory, sandboxdProgram, type Mount } from "./bubblewrap.ts";
import { loadCommand, type LaunchOptions } from "./launch.ts";
import { limitCommand } from "./init.ts";
import { start } from "./sandbox-processes.ts";

const cacheDirectory = `${runtimeDirectory}/cache`;
/** sandboxd and the control server remove this variable from their environments, so that user programs do not get it. */
const cacheVariable = "NODE_COMPILE_CACHE";
export const cacheEnvironment = { [cacheVariable]: cacheDirectory };

export interface Warming {
  done: Promise<Mount | undefined>;
  stop(): Promise<void>;
}

export async function warmCompileCache(directory: string, options: LaunchOptions): Promise<Warming> {
  const mount: Mount = { from: join(directory, "cache"), to: cacheDirectory };
  const stored = await storedPath(options.mounts);
  if (stored !== undefined && (await succeeds(copy(stored, mount.from))))
    return { done: makeReadOnly(mount).catch(() => undefined), stop: async () => undefined };
  await mkdir(mount.from, { recursive: true });
  // If root starts the server, the sandbox that fills the cache runs as another user than the engine.
  await chmod(mount.from, 0o777);
  const processes = await start({
    ...options,
    env: { ...options.env, ...cacheEnvironment },
    mounts: [...options.mounts, { ...mount, isWritable: true }],
    command: limitCommand(loadCommand(options.toolchain), options.limits),
  });
  const done = processes.exited.then(async ({ exitCode }) => {
    await makeReadOnly(mount);
    if (exitCode !== 0) return undefined;
    if (stored !== undefined) await store(mount.from, stored);
    return mount;
  });
  const ended = done.catch(() => undefined);
  return {
    done: ended,
    async stop() {
      await processes.kill();
      // The caller removes the directory next, and `store` may still be copying it.
      await ended;
    },
  };
}

async function makeReadOnly(mount: Mount): Promise<Mount> {
  await chmod(mount.from, 0o755);
  for (const entry of await readdir(mount.from, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    // A later sandbox may have the same user ids as the sandbox that made the cache. It must not be able to write to the cache.
    await chown(path, process.getuid?.() ?? 0, process.getgid?.() ?? 0);
    await chmod(path, entry.isDirectory() ? 0o755 : 0o644);
  }
  return mount;
}

/** The path where a clone stores the cache of these programs and this Node. Undefined if a cache cannot be stored. */
async function storedPath(mounts: readonly Mount[]): Promise<string | undefined> {
  if (isPackaged || !isWritable()) return undefined;
  const hash = createHash("sha256");
  for (const { from, to } of mounts) {
    if (to === controlProgram || to === sandboxdProgram) hash.update(await readFile(from));
    if (to !== nodeProgram) continue;
    const { size, mtimeMs } = await stat(from);
    hash.update(`${from}\0${size}\0${mtimeMs}\0`);
  }
  return join(CACHE_DIRECTORY, `${hash.digest("hex").slice(0, 32)}-compiled`);
}

const copy = (from: string, to: string) => cp(from, to, { recursive: true });

/** Stores a complete cache. If another engine stores one at the same time, the first one remains. */
async function store(directory: string, stored: string): Promise<void> {
  const part = `${stored}.${process.pid}`;
  const isStored = await succeeds(copy(directory, part).then(() => rename(part, stored)));
  if (!isStored) await rm(part, { recursive: true, force: true });
}
