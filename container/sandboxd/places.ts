/**
 * The directories in which sandboxd keeps its state. Isolated sandboxes of the local platform have a separate file system
 * there; those without isolation share the host's, and have a directory each.
 */
import { closeSync, constants, fstatSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = process.env.SANDBOXD_ROOT ?? "/var/lib/sandbox-mcp";

/** What is saved and restored; tests have one elsewhere. */
export const WORKSPACE = process.env.SANDBOXD_WORKSPACE ?? "/workspace";

/** Where set-ups install, and a part of that is saved and restored; nowhere where the file system is the host's. */
export const SYSTEM =
  process.env.SANDBOXD_SYSTEM ?? (process.env.SANDBOXD_ROOT === undefined ? "/" : undefined);

/** A directory for each run: its command, its output, its end. */
export const RUNS = join(root, "runs");
/** A file for each session: the state that its next command starts with. */
export const SESSIONS = join(root, "sessions");
/** A directory for each slot: the pipes of a ready shell, or of the run that it became. */
export const SLOTS = join(root, "slots");
/** A note for each write that is under way, from which the next sandboxd completes or removes it. */
export const WRITES = join(root, "writes");
/** What is known of the workspace's last save or restore. */
export const SNAPSHOT = join(root, "snapshot");

/** A link to the program that copies output. Its name is the process's, of which Linux keeps 15 characters. */
export const COPIER = join(root, "sandboxd-copier");

/** Where kernels put the output of code, two files for each run: the same for all sandboxes that share a file system. */
export const KERNEL_OUTPUT = "/var/lib/sandbox-mcp/runs";

/** Where the shell scripts of this program are. */
export const SCRIPTS = "/opt/sandbox-mcp/sandboxd";

/** Makes the directories that are missing. */
export function makePlaces(): void {
  for (const directory of [RUNS, SESSIONS, SLOTS, WRITES]) {
    try {
      mkdirSync(directory, { recursive: true });
    } catch {
      // User code has put something else there; whatever needs the directory reports that.
    }
  }
}

/** Bytes of a file of ours at most: the state of a shell with many functions is the largest. */
const MAX_TEXT_BYTES = 16 * 1024 * 1024;

/** A small file's text, or undefined where there is none. User code can put a pipe there, for which a plain read would wait. */
export function textOf(path: string): string | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = fstatSync(file);
    return found.isFile() && found.size <= MAX_TEXT_BYTES ? readFileSync(file, "utf8") : undefined;
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
