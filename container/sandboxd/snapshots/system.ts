/**
 * What a set-up installs outside of the workspace: the changes of the directories below, against what was there before. Their
 * own mount points, caches that only make another installation faster, and what the platform writes there are left out.
 */
import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FileError } from "../file-error.ts";
import { textOf } from "../directories.ts";
import { SNAPSHOT_ENTRIES } from "./calls.ts";
import { turns } from "../small-steps.ts";
import { type FoundFile, type ScannedEntry, scanEntry, namesIn } from "./scan.ts";

/** Below `/`. */
const DIRECTORIES = new Set(["etc", "home", "opt", "root", "srv", "usr", "var"]);

const LEFT_OUT = new Set([
  "etc/hostname",
  "etc/hosts",
  "etc/mtab",
  "etc/resolv.conf",
  "etc/ssl/certs",
  "opt/sandbox-mcp",
  "opt/sandbox-runtime",
  "root/.cache/pip",
  "root/.cache/uv",
  "root/.npm/_cacache",
  "root/.npm/_logs",
  "usr/local/share/ca-certificates",
  "var/cache",
  "var/lib/apt/lists",
  "var/lib/sandbox-mcp",
  "var/log",
  "var/run",
  "var/tmp",
]);

/** Of each path, what tells a change. */
export type FileMarks = ReadonlyMap<string, string>;

/** Whether a path may be of a set-up's outcome. What is left out has no other name: no parent is followed as a link. */
export function mayBeSystemFile(path: string): boolean {
  const slash = path.indexOf("/");
  if (!DIRECTORIES.has(slash < 0 ? path : path.slice(0, slash))) return false;
  for (let end = path.length; end > 0; end = path.lastIndexOf("/", end - 1))
    if (LEFT_OUT.has(path.slice(0, end))) return false;
  return true;
}

/** Things that the system may have: the memory that it takes to know them is bounded. */
const MAX_FILES = 500_000;

/** The system as it is, for `changesSince`. @throws {FileError} for one that is too large */
export async function systemNow(root: string, signal: AbortSignal): Promise<FileMarks> {
  const states = new Map<string, string>();
  const take = (one: ScannedEntry) => {
    if (states.size >= MAX_FILES) throw new FileError({ problem: "too_large" });
    states.set(one.path, stateOf(one));
  };
  mustShowChanges(root);
  await visit(root, signal, take);
  return states;
}

/**
 * A file in an overlay may say another device than its directory, as what is mounted does: then no change would be seen, and
 * an outcome without it be kept as the whole. @throws {FileError}
 */
function mustShowChanges(root: string): void {
  const directory = join(root, "opt");
  const file = join(directory, ".sandbox-mcp-new");
  mkdirSync(directory, { recursive: true });
  try {
    writeFileSync(file, "");
    if (lstatSync(file).dev !== lstatSync(root).dev) throw new FileError({ problem: "special" });
  } finally {
    rmSync(file, { force: true });
  }
}

/** Takes all there is of the system, each directory before what is in it. */
async function visit(root: string, signal: AbortSignal, take: (one: ScannedEntry) => void): Promise<void> {
  const { dev } = lstatSync(root, { bigint: true });
  const directories = [""];
  const turn = turns();
  for (let next = directories.pop(); next !== undefined; next = directories.pop())
    for (const name of namesIn(root, next) ?? []) {
      await turn();
      signal.throwIfAborted();
      const path = next === "" ? name : `${next}/${name}`;
      const one = mayBeSystemFile(path) ? scanEntry(root, path, dev) : undefined;
      if (one) take(one);
      if (one?.type === "directory") directories.push(path);
    }
}

/**
 * What is new, what has changed and what was removed, with the directories that lead there.
 * @throws {FileError} for more than a snapshot holds
 */
export async function changesSince(
  before: FileMarks,
  root: string,
  signal: AbortSignal,
): Promise<ScannedEntry[]> {
  const changed = new Map<string, ScannedEntry>();
  const directories = new Map<string, ScannedEntry>();
  const missing = new Set(before.keys());
  const add = (one: ScannedEntry) => {
    changed.set(one.path, one);
    if (changed.size > SNAPSHOT_ENTRIES) throw new FileError({ problem: "too_large" });
  };
  const take = (one: ScannedEntry) => {
    missing.delete(one.path);
    if (one.type === "directory") directories.set(one.path, one);
    if (before.get(one.path) !== stateOf(one)) add(one);
  };
  await visit(root, signal, take);
  // What was below a directory that was removed goes with it.
  for (const path of missing) if (directories.has(above(path)) || above(path) === "") add(removed(path));
  for (const path of changed.keys()) {
    const directory = directories.get(above(path));
    // The map goes on with it, and so to the top.
    if (directory) changed.set(directory.path, directory);
  }
  // A directory's path stands before those of what is in it.
  return [...changed.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** The directory that a path is in; nothing for one at the top. */
function above(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

function removed(path: string): FoundFile {
  return { type: "removed", path, mode: 0, mtime: 0, uid: 0, gid: 0, size: 0, status: "" };
}

function stateOf(one: ScannedEntry): string {
  // A directory's times change with what is in it.
  if (one.type === "directory") return `directory ${one.mode} ${one.uid} ${one.gid}`;
  return "status" in one ? one.status : one.type;
}

/** SHA-256 of the kind and the versions of what installations meet. */
export function systemID(root: string): string {
  const { arch, platform, version } = process;
  const files = ["etc/os-release", "var/lib/dpkg/status", "opt/venv/pyvenv.cfg"];
  const texts = files.map((file) => textOf(join(root, file)) ?? "");
  return createHash("sha256")
    .update(JSON.stringify([arch, platform, version, ...texts]))
    .digest("hex");
}
