/** Finds the differences from the base, and chooses which of them a save contains. */
import { lstatSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isUnfinished } from "../directories.ts";
import { FileError } from "../file-error.ts";
import { boundedSize } from "../shapes.ts";
import { MAX_LEFT, type NamedFiles, type Plan, SNAPSHOT_ENTRIES } from "./snapshot-requests.ts";
import { yieldBetweenSteps } from "../small-steps.ts";
import { Base } from "./base.ts";
import { type FoundFile, type ScannedEntry, isFound, namesIn, scanEntry } from "./file-status.ts";
import { SYSTEM_PACKAGES, parentPath, isOfImage, isOfState, pathIn, unitOf } from "./scope.ts";

/** Matches paths in directories that tools can create again. */
const REGENERABLE = /((?:^|\/)(?:node_modules|\.venv|venv|__pycache__|\.cache|\.next|target))\/.*/s;

function isRegenerable(path: string): boolean {
  return !isOfImage(path) && unitOf(path) === undefined && REGENERABLE.test(path);
}

/** A directory may change again within this many nanoseconds without a new time. */
const RECENT_NS = 100_000_000n;

interface KnownDirectory {
  status: string;
  directories: string[];
}

export class Scanner {
  readonly #root: string;
  readonly #base: () => Base;
  readonly #from: string;
  #hasOneDevice: boolean | undefined;
  #known = new Map<string, KnownDirectory>();

  constructor(root: string, base: () => Base, from = "") {
    this.#root = root;
    this.#base = base;
    this.#from = from;
  }

  /**
   * Finds all changes, parent directories first; none if the root does not exist. Regenerable directories come last. If one of them
   * exceeds the limit, it has the type `crowded`, and its content is left out.
   * @throws {FileError} for more entries than a snapshot may have
   */
  async changes(
    signal: AbortSignal,
    { isThorough = true, maxEntries = SNAPSHOT_ENTRIES } = {},
  ): Promise<ScannedEntry[]> {
    const entries: ScannedEntry[] = [];
    const stats = lstatSync(join(this.#root, this.#from), { bigint: true, throwIfNoEntry: false });
    if (stats === undefined) return entries;
    const { dev } = stats;
    this.#hasOneDevice ??= this.#from !== "" || hasOneDevice(this.#root, dev);
    const devices = { dev, hasOneDevice: this.#hasOneDevice };
    const base = this.#base();
    const now = BigInt(Date.now()) * 1_000_000n;
    const known = new Map<string, KnownDirectory>();
    /** The scanned directories by path. `added` has the paths of the directories that are already among the changes. */
    const directories = new Map<string, FoundFile>();
    const added = new Set<string>();
    const addParents = (path: string) => {
      const directory = directories.get(parentPath(path));
      if (!directory || added.has(directory.path)) return;
      addParents(directory.path);
      added.add(directory.path);
      entries.push(directory);
    };
    const add = (entry: ScannedEntry) => {
      if (entry.type === "directory" && added.has(entry.path)) return;
      addParents(entry.path);
      if (entry.type === "directory") added.add(entry.path);
      entries.push(entry);
    };
    let toVisit: { path: string; found?: FoundFile }[] = [{ path: this.#from }];
    const later: typeof toVisit = [];
    /** The regenerable directory being scanned, and the number of changes before it. */
    let regenerable: { path: string; before: number } | undefined;
    const turn = yieldBetweenSteps();
    for (;;) {
      let visit = toVisit.pop();
      if (visit === undefined) {
        visit = later.shift();
        if (visit === undefined) break;
        regenerable = { path: visit.path, before: entries.length };
      }
      await turn();
      signal.throwIfAborted();
      const { path } = visit;
      const isInImage = path !== "" && isOfImage(path);
      let directory: FoundFile | undefined;
      if (path !== "") {
        const entry = visit.found ?? scanEntry(this.#root, path, devices);
        if (entry?.type !== "directory") continue;
        directory = entry;
        directories.set(path, directory);
      }
      const before = isInImage ? this.#known.get(path) : undefined;
      if (before && !isThorough && before.status === directory?.status) {
        known.set(path, before);
        for (const name of before.directories) toVisit.push({ path: pathIn(path, name) });
        continue;
      }
      const count = entries.length;
      const states = base.statesIn(path);
      const isKnown = (file: FoundFile, state: string | undefined) =>
        base.isUnchanged(file, state, isInImage);
      // If the parent was listed, this directory's state was compared then. Otherwise it is compared here.
      if (directory && !visit.found && !isKnown(directory, base.stateAt(path))) add(directory);
      const names = namesIn(this.#root, path);
      if (names === undefined) add({ type: "unreadable", path });
      const inside: string[] = [];
      for (const name of names ?? []) {
        await turn();
        signal.throwIfAborted();
        const at = pathIn(path, name);
        const isSaved = isOfState(at) && !isUnfinished(name);
        const entry = isSaved ? scanEntry(this.#root, at, devices) : undefined;
        if (entry === undefined) continue;
        if (entry.type === "directory") {
          inside.push(name);
          directories.set(at, entry);
          (regenerable === undefined && isRegenerable(`${at}/`) ? later : toVisit).push({
            path: at,
            found: entry,
          });
        }
        if (!isFound(entry) || !isKnown(entry, states?.get(name))) add(entry);
      }
      if (names && states) {
        const present = new Set(names);
        for (const name of states.keys()) {
          const at = pathIn(path, name);
          // If the user removes the workspace, the next container gets an empty one, because commands start in the workspace.
          if (!present.has(name) && at !== "workspace" && isOfState(at)) add(removedEntry(at));
        }
      }
      if (isInImage && states && directory && entries.length === count && !added.has(path))
        if (now - directory.changedAt > RECENT_NS)
          known.set(path, { status: directory.status, directories: inside });
      if (entries.length <= maxEntries) continue;
      if (regenerable === undefined) throw new FileError({ problem: "too_large" });
      for (const { path: out } of entries.splice(regenerable.before)) added.delete(out);
      add({ type: "crowded", path: regenerable.path });
      toVisit = [];
    }
    this.#known = known;
    return entries;
  }
}

export async function scanNamed(
  root: string,
  from: string,
  word: string,
  signal: AbortSignal,
): Promise<ScannedEntry[]> {
  const { dev } = lstatSync(root, { bigint: true });
  const devices = { dev, hasOneDevice: true };
  const below = await new Scanner(root, () => new Base(""), from).changes(signal);
  const ofWord = below.filter(({ path }) => path.includes(word));
  const all = new Map(ofWord.map((entry) => [entry.path, entry]));
  for (const { path } of ofWord)
    for (let higher = parentPath(path); higher !== ""; higher = parentPath(higher)) {
      const directory = all.has(higher) ? undefined : scanEntry(root, higher, devices);
      if (directory) all.set(higher, directory);
    }
  // A directory sorts before its content.
  return [...all.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/**
 * Whether files have the same device as their directory. In some overlay file systems, files have other devices. In these file
 * systems, only the devices of directories reveal mounts.
 */
function hasOneDevice(root: string, dev: bigint): boolean {
  const file = join(root, ".sandbox-mcp-new");
  try {
    writeFileSync(file, "");
    return lstatSync(file, { bigint: true }).dev === dev;
  } catch {
    return true;
  } finally {
    rmSync(file, { force: true });
  }
}

function removedEntry(path: string): FoundFile {
  const noAttributes = { mode: 0, mtime: 0, changedAt: 0n, uid: 0, gid: 0, size: 0, status: "" };
  return { type: "removed", path, ...noAttributes };
}

export function firstNames(paths: readonly string[], name = nameOf): NamedFiles | undefined {
  if (paths.length === 0) return undefined;
  return { count: paths.length, names: paths.slice(0, MAX_LEFT).map(name) };
}

function nameOf(path: string): string {
  const name = Buffer.from(path, "latin1").toString().slice(0, 4000);
  if (name === SYSTEM_PACKAGES) return name;
  return name.startsWith("workspace/") ? name.slice("workspace/".length) : `/${name}`;
}

/**
 * Drops files that cannot be saved, and then files above the limit: first regenerable directories, then whole libraries, then the
 * largest files.
 */
export function chooseFiles(
  entries: readonly ScannedEntry[],
  max: number,
): { chosen: FoundFile[]; left: Plan["left"] } {
  const savable = entries.filter(isFound);
  const pathsOf = (type: ScannedEntry["type"]) =>
    entries.filter((entry) => entry.type === type).map(({ path }) => path);
  const total = savable.reduce((sum, { size }) => sum + size, 0);
  const leftOut: Plan["left"] = {
    count: 0,
    bytes: 0,
    largest: [],
    unreadable: firstNames(pathsOf("unreadable")),
    special: firstNames(pathsOf("special")),
    crowded: firstNames(pathsOf("crowded")),
  };
  if (total <= max) return { chosen: savable, left: leftOut };
  const groups = new Map<string, Group>();
  for (const entry of savable) {
    const unit = unitOf(entry.path);
    // Directories take no room, and their content may be kept.
    if (entry.type === "directory" || (entry.type !== "file" && unit === undefined)) continue;
    const key = unit ?? entry.path;
    const order = unit === undefined ? (isRegenerable(entry.path) ? 2 : 0) : 1;
    const group = groups.get(key) ?? { order, size: 0, all: [] };
    group.size += entry.size;
    group.all.push(entry);
    groups.set(key, group);
  }
  const out = new Set<FoundFile>();
  const places = new Map<string, number>();
  let sum = 0;
  for (const [key, { order, size, all }] of [...groups].sort(
    ([, a], [, b]) => a.order - b.order || a.size - b.size,
  )) {
    if (sum + size <= max) {
      sum += size;
      continue;
    }
    for (const entry of all) out.add(entry);
    leftOut.count += all.filter(({ type }) => type === "file").length;
    leftOut.bytes = boundedSize(leftOut.bytes + size);
    const where = order === 2 ? key.replace(REGENERABLE, "$1") : key;
    places.set(where, boundedSize((places.get(where) ?? 0) + size));
  }
  leftOut.largest = [...places]
    .sort(([a, aSize], [b, bSize]) => bSize - aSize || (a < b ? -1 : 1))
    .slice(0, MAX_LEFT)
    .map(([path, size]) => ({ path: nameOf(path), size }));
  return { chosen: savable.filter((entry) => !out.has(entry)), left: leftOut };
}

/**
 * Files that are saved together or not at all. If room is short, groups with a higher `order` are dropped first. Among groups of
 * the same order, larger ones are dropped first.
 */
interface Group {
  order: 0 | 1 | 2;
  size: number;
  all: FoundFile[];
}
