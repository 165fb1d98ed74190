/**
 * Node's compile cache. Our programs start faster with it. The engine fills it in a sandbox that no user gets. Afterwards it is read-only.
 */
import { chmod, chown, mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { runtimeDirectory, type Mount } from "./bubblewrap.ts";
import { loadCommand, type LaunchOptions } from "./launch.ts";
import { limitCommand } from "./init.ts";
import { start } from "./sandbox-processes.ts";

const cacheDirectory = `${runtimeDirectory}/cache`;
/** sandboxd and the control server remove this variable from their environments, so that user programs do not get it. */
export const cacheVariable = "NODE_COMPILE_CACHE";
export const cacheEnvironment = { [cacheVariable]: cacheDirectory };

export interface Warming {
  done: Promise<Mount | undefined>;
  stop(): Promise<void>;
}

export async function warmCompileCache(directory: string, options: LaunchOptions): Promise<Warming> {
  const mount: Mount = { from: join(directory, "cache"), to: cacheDirectory };
  await mkdir(mount.from);
  // Each sandbox runs as a different user.
  await chmod(mount.from, 0o777);
  const processes = await start({
    ...options,
    env: { ...options.env, ...cacheEnvironment },
    mounts: [...options.mounts, { ...mount, writable: true }],
    command: limitCommand(loadCommand(options.toolchain), options.limits),
  });
  const done = processes.exited.then(async ({ exitCode }) => {
    await chmod(mount.from, 0o755);
    if (exitCode !== 0) return undefined;
    for (const entry of await readdir(mount.from, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      // A later sandbox may have the same ids as the one that made the cache.
      await chown(path, process.getuid?.() ?? 0, process.getgid?.() ?? 0);
      await chmod(path, entry.isDirectory() ? 0o755 : 0o644);
    }
    return mount;
  });
  return { done: done.catch(() => undefined), stop: processes.kill };
}
