/**
 * The directories in which sandboxd keeps its state. Isolated sandboxes of the local platform have a separate file system
 * there; those without isolation share the host's, and have a directory each.
 */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";

const root = process.env.SANDBOXD_ROOT ?? "/var/lib/sandbox-mcp";

/** Where users work; tests have it elsewhere. */
export const WORKSPACE = process.env.SANDBOXD_WORKSPACE ?? "/workspace";

/** The root of what is saved and restored; where the file system is the host's, there is none, and the workspace alone is. */
export const SYSTEM =
  process.env.SANDBOXD_SYSTEM ?? (process.env.SANDBOXD_ROOT === undefined ? "/" : undefined);

/** Where the shell scripts of this program are. */
export const SCRIPTS = "/opt/sandbox-mcp/sandboxd";

/** A directory for each run: its command, its output, its end. */
export const RUNS = join(root, "runs");
/** A file for each session: the state that its next command starts with. */
export const SESSIONS = join(root, "sessions");
/** A directory for each slot: the pipes of a ready shell, or of the run that it became. */
export const SLOTS = join(root, "slots");
/** A note for each write that is under way, from which the next sandboxd completes or removes it. */
export const WRITES = join(root, "writes");
/** What is known of the last save or restore, and of what the container started with. */
export const SNAPSHOT = join(root, "snapshot");

/**
 * Names of our processes: a user's `pkill` for bash, node, tee, sandbox or /opt finds none. Where a process cannot choose its name, it
 * is started by a link of that name, whose last 15 characters Linux shows.
 */
export const SANDBOXD_NAME = "sbxd";
export const KEEPER = join(SLOTS, "sbx-keep");
export const COPIER = join(SLOTS, "sbx-copy");
export const KEEPER_SCRIPT = join(SLOTS, "sbx-script");
const LINKS = {
  [KEEPER]: "/bin/sh",
  [KEEPER_SCRIPT]: join(SCRIPTS, "keeper.sh"),
  [COPIER]: "/usr/bin/tee",
  [join(SLOTS, "sbx-sh")]: "/bin/bash",
  [join(SLOTS, "own")]: SCRIPTS,
};

/** Where kernels put the output of code, two files for each run: the same for all sandboxes that share a file system. */
export const KERNEL_OUTPUT = "/var/lib/sandbox-mcp/runs";

/** Makes the directories and links that are missing. */
export function makePlaces(): void {
  for (const directory of [RUNS, SESSIONS, SLOTS, WRITES]) {
    try {
      mkdirSync(directory, { recursive: true });
    } catch {
      // User code has put something else there; whatever needs the directory reports that.
    }
  }
  makeLinks();
}

/** Makes the links that are missing. */
export function makeLinks(): void {
  for (const [path, target] of Object.entries(LINKS)) {
    try {
      if (!existsSync(path)) symlinkSync(target, path);
    } catch {
      // The disk is full, or user code has put something else there: starting what needs it fails.
    }
  }
}

/** Bytes of a file of ours at most: the state of a shell with many functions is the largest. */
const MAX_TEXT_BYTES = 16 * 1024 * 1024;

/** A file's text, or undefined where there is none. User code can put a pipe there, for which a plain read would wait. */
export function textOf(
  path: string,
  encoding: BufferEncoding = "utf8",
  maxBytes = MAX_TEXT_BYTES,
): string | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = fstatSync(file);
    return found.isFile() && found.size <= maxBytes ? readFileSync(file, encoding) : undefined;
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
