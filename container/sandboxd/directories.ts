/** The directories of sandboxd's state, in the sandbox's own file system or, without isolation, in the host's. */
import { attempt } from "./file-error.ts";
import {
  type Dirent,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";
import type * as z from "zod/mini";

const root = process.env.SANDBOXD_ROOT ?? "/var/lib/sandbox-mcp";
export const WORKSPACE = process.env.SANDBOXD_WORKSPACE ?? "/workspace";

/** The root of saved files; undefined on the host's file system, where only the workspace is saved. */
export const SYSTEM =
  process.env.SANDBOXD_SYSTEM ?? (process.env.SANDBOXD_ROOT === undefined ? "/" : undefined);

export const SCRIPTS = "/opt/sandbox-mcp/sandboxd";
/** A directory per run: its command, output and end. */
export const RUNS = join(root, "runs");
/** A file per session: the state for its next command. */
export const SESSIONS = join(root, "sessions");
/** A directory per slot: the pipes of a ready shell, or of the run that uses the slot. */
export const SLOTS = join(root, "slots");
/** A note for each unfinished write. The note lets the next sandboxd complete or undo the write. */
export const WRITES = join(root, "writes");
/** The record of the last save or restore, and of the container's initial files. */
export const SNAPSHOT = join(root, "snapshot");

/**
 * Names of our processes. A user's `pkill` for bash, node, tee, sandbox or /opt does not match them. A process that cannot
 * rename itself is started through a link with such a name. Linux shows only 15 characters of a name.
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

/** Where kernels write the output of code, two files per run. Without isolation, all sandboxes share it. */
export const KERNEL_OUTPUT = "/var/lib/sandbox-mcp/runs";

/** The name of new content until it replaces a file of the same directory. */
export const unfinishedName = (id: string) => `.sandbox-mcp.${id}`;
export const isUnfinished = (name: string) => /^\.sandbox-mcp\.[0-9a-f]{8}(-[0-9a-f]+){4}$/.test(name);

export function makePlaces(): void {
  for (const directory of [RUNS, SESSIONS, SLOTS, WRITES]) {
    // Fails if user code has put something else in its place. The code that needs the directory reports that.
    attempt(() => mkdirSync(directory, { recursive: true }), undefined);
  }
  makeLinks();
}

export function makeLinks(): void {
  for (const [path, target] of Object.entries(LINKS)) {
    // Fails if the disk is full, or user code has put something else in its place. Programs that need the file report that.
    if (!existsSync(path)) attempt(() => symlinkSync(target, path), undefined);
  }
}

/** A directory's entries; none if the directory is missing or user code has replaced it. */
export function entriesOf(directory: string): Dirent[] {
  return attempt(() => readdirSync(directory, { withFileTypes: true }), []);
}

/**
 * The limit of a file that sandboxd reads from its own directories, in bytes. The state of a shell with many functions can be
 * this large.
 */
const MAX_TEXT_BYTES = 16 * 1024 * 1024;

/** A file's text; undefined if unreadable. User code can put a pipe there, and reading it would block. */
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

/** A file of JSON; undefined if unreadable or invalid. */
export function fileAs<T extends z.ZodMiniType>(schema: T, path: string): z.output<T> | undefined {
  return attempt(() => schema.parse(JSON.parse(textOf(path) ?? "")), undefined);
}
