/** Finds the differences from the base, and chooses which of them a save contains. */
import { lstatSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { boundedSize } from "../shapes.ts";
import { MAX_LEFT, type NamedFiles, type Plan, SNAPSHOT_ENTRIES } from "./snapshot-requests.ts";
import { Base } from "./base.ts";
import { type FoundFile, type ScannedEntry, isFound, scanEntry } from "./file-status.ts";
import { REGENERABLE, SYSTEM_PACKAGES, isRegenerable, parentPath, unitOf } from "./scope.ts";
import { type KnownDirectories, TreeScan } from "./tree-scan.ts";

export class Scanner {
  readonly #root: string;
  readonly #base: () => Base;
  readonly #from: string;
  #hasOneDevice: boolean | undefined;
  #known: KnownDirectories = new Map();

  constructor(root: string, base: () => Base, from = "") {
    this.#root = root;
    this.#base = base;
    this.#from = from;
  }

  /**
   * Finds all changes. The scan has none if the root does not exist.
   * @throws {FileError} for more entries than a snapshot may have
   */
  async scan(
    signal: AbortSignal,
    { isThorough = true, maxEntries = SNAPSHOT_ENTRIES } = {},
  ): Promise<TreeScan | undefined> {
    const stats = lstatSync(join(this.#root, this.#from), { bigint: true, throwIfNoEntry: false });
    if (stats === undefined) return undefined;
    const { dev } = stats;
    this.#hasOneDevice ??= this.#from !== "" || hasOneDevice(this.#root, dev);
    const devices = { dev, hasOneDevice: this.#hasOneDevice };
    const place = { root: this.#root, from: this.#from, base: this.#base(), devices, maxEntries };
    const scan = new TreeScan(place, isThorough ? new Map() : this.#known);
    await scan.begin(signal);
    this.#known = scan.known;
    return scan;
  }

  /** The changes that a scan finds, parent directories first. */
  async changes(signal: AbortSignal, options = {}): Promise<ScannedEntry[]> {
    return (await this.scan(signal, options))?.entries ?? [];
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
