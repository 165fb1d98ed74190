/**
 * What a set-up installs outside of the workspace: the changes of the directories below, against what was there before. Their
 * own mount points, caches that only make another installation faster, and what the platform writes there are left out.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { textOf } from "../places.ts";
import { type Found, type Seen, scan } from "./scan.ts";

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
export type Before = ReadonlyMap<string, string>;

/** Whether a path may be of a set-up's outcome. What is left out has no other name: no parent is followed as a link. */
export function isOfSystem(path: string): boolean {
  const slash = path.indexOf("/");
  if (!DIRECTORIES.has(slash < 0 ? path : path.slice(0, slash))) return false;
  for (let end = path.length; end > 0; end = path.lastIndexOf("/", end - 1))
    if (LEFT_OUT.has(path.slice(0, end))) return false;
  return true;
}

/** The system as it is, for `changesSince`. @throws {FileError} for more than a snapshot holds */
export async function systemNow(root: string, signal: AbortSignal): Promise<Before> {
  const seen = await scan(root, signal, "", isOfSystem);
  return new Map(seen.map((one) => [one.path, stateOf(one)]));
}

/** What is new, what has changed and what was removed, with the directories that lead there. */
export async function changesSince(before: Before, root: string, signal: AbortSignal): Promise<Seen[]> {
  const now = await scan(root, signal, "", isOfSystem);
  const all = new Map(now.map((one) => [one.path, one]));
  const changed = new Map<string, Seen>();
  const add = (one: Seen) => {
    changed.set(one.path, one);
    for (let end = one.path.lastIndexOf("/"); end > 0; end = one.path.lastIndexOf("/", end - 1)) {
      const above = all.get(one.path.slice(0, end));
      if (above) changed.set(above.path, above);
    }
  };
  for (const one of now) if (before.get(one.path) !== stateOf(one)) add(one);
  for (const path of before.keys()) {
    const above = all.get(path.slice(0, Math.max(0, path.lastIndexOf("/"))));
    // What was below a directory that was removed goes with it.
    if (!all.has(path) && (above?.type === "directory" || !path.includes("/"))) add(removed(path));
  }
  // A directory's path stands before those of what is in it.
  return [...changed.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

function removed(path: string): Found {
  return { type: "removed", path, mode: 0, mtime: 0, size: 0, status: "" };
}

function stateOf(one: Seen): string {
  // A directory's times change with what is in it.
  if (one.type === "directory") return `directory ${one.mode}`;
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
