/**
 * One scan of a file system. Programs may rename files while it runs: a file that moves from a directory that is not listed yet to
 * one that is listed already is in neither listing. So the scan ends with a check of its directories, and lists those again that
 * have changed.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { isUnfinished } from "../directories.ts";
import { FileError } from "../file-error.ts";
import { yieldBetweenSteps } from "../small-steps.ts";
import type { Base } from "./base.ts";
import {
  type Devices,
  type FoundFile,
  type ScannedEntry,
  inodeOf,
  isFound,
  namesIn,
  scanEntry,
  statusAt,
} from "./file-status.ts";
import { isBelow, isOfImage, isOfState, isRegenerable, parentPath, pathIn } from "./scope.ts";

/** A directory may change again within this many nanoseconds without a new time. */
const RECENT_NS = 100_000_000n;

/** The kernel's clock for file times advances in steps of at most 10 ms. Two of these steps, in nanoseconds. */
const CLOCK_STEPS_NS = 20_000_000n;

/**
 * How often a scan checks its directories. A program that moves files all the time must not make it endless. Listing the changed
 * directories again takes milliseconds, so few files move meanwhile.
 */
const MAX_CHECKS = 3;

/** The pause between checks, in milliseconds: about two steps of the clock, so that the last change of a directory is certain. */
const CHECK_PAUSE_MS = 25;

/**
 * How often a directory is read at most for one listing. If a name is gone before its status was read, the directory is read again at
 * once for new names. Otherwise a file that a program renames again and again could be in no listing of a large directory.
 */
const MAX_READS = 4;

/** The unchanged directories of the image, with the names of the directories in each. */
export type KnownDirectories = Map<string, { status: string; directories: string[] }>;

interface Place {
  root: string;
  /** The path from which the scan begins, relative to the root. */
  from: string;
  base: Base;
  devices: Devices;
  maxEntries: number;
}

/** A directory to list. If its parent was listed just before, `found` is its status in that listing. */
interface Visit {
  path: string;
  found?: FoundFile;
}

interface Visited {
  status: string;
  /** Whether the scan has listed it. Otherwise it was unchanged since an earlier scan. */
  isListed: boolean;
  /** Whether a change after the listing leaves another status. */
  isCertain: boolean;
}

/** What the listing of a regenerable directory has added. */
interface ListedInside {
  paths: string[];
  /** The directories that became changes because something in the directory has changed. */
  parents: string[];
}

type Turn = () => Promise<void> | undefined;

export class TreeScan {
  /** The directories that the next scan need not list if they are still unchanged. */
  readonly known: KnownDirectories = new Map();
  /** Whether no directory had changed at the last check. */
  isSettled = false;
  /** The last statuses, by inode, of files that were gone when their directories were listed again. Cleared when the scan is settled. */
  readonly gone = new Map<string, string>();
  readonly #place: Place;
  readonly #knownBefore: Readonly<KnownDirectories>;
  /** The changes by path, with the directories above them. */
  readonly #changes = new Map<string, FoundFile>();
  readonly #problems = new Map<string, ScannedEntry>();
  /** Regenerable directories with too many entries. */
  readonly #crowded = new Set<string>();
  readonly #directories = new Map<string, FoundFile>();
  readonly #visited = new Map<string, Visited>();
  #listed: ListedInside | undefined;
  #lastCheck: Promise<unknown> = Promise.resolve();

  constructor(place: Place, knownBefore: Readonly<KnownDirectories>) {
    this.#place = place;
    this.#knownBefore = knownBefore;
  }

  /**
   * The changes, parent directories first. If a regenerable directory exceeds the limit, it also has an entry of the type
   * `crowded`, and its content is left out.
   */
  get entries(): ScannedEntry[] {
    const crowded = Array.from(this.#crowded, (path) => ({ type: "crowded", path }) as const);
    return [...this.#changes.values(), ...this.#problems.values(), ...crowded];
  }

  /** @throws {FileError} for more entries than allowed */
  async begin(signal: AbortSignal): Promise<void> {
    await this.#listAll(signal);
    // The image's directories are visited last, so a file that came to an unchanged one was found where it came from.
    const isListed = ({ isListed: listed }: Visited) => listed;
    if ((await this.#changed(signal, isListed)).length === 0) this.isSettled = true;
    else await this.#check(signal);
  }

  /**
   * Lists the directories again that have changed since, once, and returns all changes. Files may move before the caller reads
   * them, so it can repeat the call.
   * @throws {FileError} for more entries than allowed, also at each later call
   */
  async again(signal: AbortSignal): Promise<ScannedEntry[]> {
    const check = this.#lastCheck.then(() => this.#checkOnce(signal));
    this.#lastCheck = check;
    await check;
    return this.entries;
  }

  async #checkOnce(signal: AbortSignal): Promise<void> {
    if (!this.isSettled) await sleep(CHECK_PAUSE_MS, undefined, { signal });
    await this.#check(signal, 1);
  }

  async #check(signal: AbortSignal, maxChecks = MAX_CHECKS): Promise<void> {
    this.isSettled = false;
    for (let checks = 0; checks < maxChecks; checks++) {
      if (checks > 0) await sleep(CHECK_PAUSE_MS, undefined, { signal });
      const changed = await this.#changed(signal);
      this.isSettled = changed.length === 0;
      if (this.isSettled) return this.gone.clear();
      await this.#listAgain(changed, signal);
    }
  }

  async #changed(signal: AbortSignal, isChecked = (_visited: Visited) => true): Promise<string[]> {
    const changed: string[] = [];
    const turn = yieldBetweenSteps();
    for (const [path, visited] of this.#visited) {
      await turn();
      signal.throwIfAborted();
      if (!isChecked(visited)) continue;
      if (!visited.isCertain || visited.status !== statusAt(this.#place.root, path)) changed.push(path);
    }
    return changed;
  }

  async #listAgain(paths: readonly string[], signal: AbortSignal): Promise<void> {
    const again = new Set(paths);
    const isInside = (path: string) => path !== this.#place.from && again.has(parentPath(path));
    const former = new Map([...this.#changes].filter(([path]) => isInside(path)));
    const formerDirectories = takeOut(this.#directories, isInside);
    takeOut(this.#problems, (path) => isInside(path) || again.has(path));
    const turn = yieldBetweenSteps();
    const children: Visit[] = [];
    for (const path of [...paths].sort()) {
      await turn();
      signal.throwIfAborted();
      this.known.delete(path);
      children.push(...(await this.#visit({ path }, turn, signal, former)));
    }
    // Only what is still there has a new entry. It keeps its place, so a directory stays before its content.
    takeOut(this.#changes, (path, entry) => former.get(path) === entry);
    this.#noteGone(former);
    const gone = new Set<string>();
    for (const [path, { status }] of formerDirectories) {
      const now = this.#directories.get(path);
      if (now && inodeOf(now.status) === inodeOf(status)) continue;
      gone.add(path);
      this.#visited.delete(path);
    }
    const isInGone = (path: string) => isBelow(gone, parentPath(path));
    if (gone.size > 0) {
      this.#noteGone(takeOut(this.#changes, isInGone));
      for (const map of [this.#problems, this.#directories, this.#visited, this.known])
        takeOut<unknown>(map, isInGone);
    }
    // What was in a directory that is gone is found again with the directory that has its place.
    const isOpen = (path: string) => !this.#visited.has(path) && !this.#crowded.has(path) && !isInGone(path);
    await this.#walk(
      children.filter(({ path }) => isOpen(path)),
      signal,
    );
    if (this.#hasTooMany) await this.#listAll(signal);
  }

  #noteGone(former: ReadonlyMap<string, FoundFile>): void {
    for (const [path, { type, status }] of former) {
      const now = this.#changes.get(path);
      const isSame = now !== undefined && inodeOf(now.status) === inodeOf(status);
      if (type === "file" && !isSame && !isBelow(this.#crowded, path)) this.gone.set(inodeOf(status), status);
    }
  }

  get #hasTooMany(): boolean {
    return this.#changes.size + this.#problems.size > this.#place.maxEntries;
  }

  /**
   * Lists everything from the beginning, and leaves out each regenerable directory with which there would be too many entries.
   * Regenerable directories come last, because no other directory may be left out.
   */
  async #listAll(signal: AbortSignal): Promise<void> {
    const former = new Map(this.#changes);
    for (const all of [
      this.#changes,
      this.#problems,
      this.#directories,
      this.#visited,
      this.#crowded,
      this.known,
    ])
      all.clear();
    const regenerable: Visit[] = [];
    await this.#walk([{ path: this.#place.from }], signal, regenerable);
    if (this.#hasTooMany) throw new FileError({ problem: "too_large" });
    for (const visit of regenerable) {
      const listed = (this.#listed = { paths: [], parents: [] });
      await this.#walk([visit], signal);
      if (this.#hasTooMany) this.#leaveOut(visit.path, listed);
    }
    this.#listed = undefined;
    this.#noteGone(former);
  }

  #leaveOut(directory: string, { paths, parents }: Readonly<ListedInside>): void {
    for (const map of [this.#changes, this.#problems, this.#directories, this.#visited])
      for (const path of paths) map.delete(path);
    for (const path of parents) this.#changes.delete(path);
    this.#visited.delete(directory);
    this.#crowded.add(directory);
  }

  /**
   * Lists directories and everything in them. Stops if there are too many entries.
   * @param regenerable gets the outermost regenerable directories, which are then not listed
   */
  async #walk(visits: readonly Visit[], signal: AbortSignal, regenerable?: Visit[]): Promise<void> {
    const toVisit: Visit[] = [];
    const put = (visit: Visit) => {
      if (regenerable && isRegenerable(`${visit.path}/`)) regenerable.push(visit);
      // The last one is visited next.
      else if (parentPath(visit.path) === "" && isOfImage(visit.path)) toVisit.unshift(visit);
      else toVisit.push(visit);
    };
    visits.forEach(put);
    const turn = yieldBetweenSteps();
    for (let visit = toVisit.pop(); visit && !this.#hasTooMany; visit = toVisit.pop()) {
      await turn();
      signal.throwIfAborted();
      (await this.#visit(visit, turn, signal)).forEach(put);
    }
  }

  /**
   * Lists one directory, and returns the directories in it.
   * @param former what its listing had before. A directory of these stays among the changes, because its content may be there
   */
  async #visit(
    { path, found }: Visit,
    turn: Turn,
    signal: AbortSignal,
    former?: ReadonlyMap<string, FoundFile>,
  ): Promise<Visit[]> {
    const { root, base, devices } = this.#place;
    const entry = found ?? scanEntry(root, path, devices);
    if (entry?.type !== "directory") {
      this.#visited.delete(path);
      return [];
    }
    const isInImage = path !== "" && isOfImage(path);
    const directory = path === "" ? undefined : entry;
    if (directory) this.#directories.set(path, directory);
    const { status, changedAt } = entry;
    const before = isInImage ? this.#knownBefore.get(path) : undefined;
    if (before?.status === status) {
      this.known.set(path, before);
      this.#visited.set(path, { status, isListed: false, isCertain: true });
      return before.directories.map((name) => ({ path: pathIn(path, name) }));
    }
    const age = BigInt(Date.now()) * 1_000_000n - changedAt;
    this.#visited.set(path, { status, isListed: true, isCertain: age > CLOCK_STEPS_NS });
    let hasChanges = false;
    const add = (one: ScannedEntry) => {
      hasChanges = true;
      this.#add(one);
    };
    const states = base.statesIn(path);
    const isKnown = (file: FoundFile, state: string | undefined) => base.isUnchanged(file, state, isInImage);
    // If the parent was listed, this directory's state was compared then. Otherwise it is compared here.
    if (directory && !found && (this.#changes.has(path) || !isKnown(directory, base.stateAt(path))))
      add(directory);
    const children = await this.#childrenOf(path, turn, signal);
    if (children === undefined) add({ type: "unreadable", path });
    const inside: Visit[] = [];
    for (const [name, child] of children ?? []) {
      await turn();
      if (child === undefined) continue;
      const { type, path: at } = child;
      if (type === "directory") {
        inside.push({ path: at, found: child });
        this.#directories.set(at, child);
      }
      const isFormer = type === "directory" && former?.get(at)?.type === "directory";
      if (!isFound(child) || isFormer || !isKnown(child, states?.get(name))) add(child);
    }
    if (children && states) {
      for (const name of states.keys()) {
        const at = pathIn(path, name);
        // If the user removes the workspace, the next container gets an empty one, because commands start in the workspace.
        if (children.has(name) || at === "workspace" || !isOfState(at)) continue;
        this.#listed?.paths.push(at);
        add(removedEntry(at));
      }
    }
    if (isInImage && states && directory && !hasChanges && !this.#changes.has(path) && age > RECENT_NS)
      this.known.set(path, { status, directories: inside.map((visit) => visit.path.slice(path.length + 1)) });
    return inside;
  }

  /**
   * What a directory has, by name; undefined for a name that is not part of the state, is gone, or has an entry under its earlier name.
   * @returns undefined if the directory cannot be read
   */
  async #childrenOf(
    path: string,
    turn: Turn,
    signal: AbortSignal,
  ): Promise<Map<string, ScannedEntry | undefined> | undefined> {
    const { root, devices } = this.#place;
    const children = new Map<string, ScannedEntry | undefined>();
    const inodes = new Set<string>();
    for (let reads = 0, isOneGone = true; isOneGone && reads < MAX_READS; reads++) {
      isOneGone = false;
      const names = namesIn(root, path);
      if (names === undefined) return undefined;
      for (const name of names) {
        if (children.get(name)) continue;
        await turn();
        signal.throwIfAborted();
        const at = pathIn(path, name);
        this.#listed?.paths.push(at);
        const isSaved = isOfState(at) && !isUnfinished(name);
        const child = isSaved ? scanEntry(root, at, devices) : undefined;
        if (isSaved && child === undefined) isOneGone = true;
        const inode = child?.type === "file" ? inodeOf(child.status) : undefined;
        // It may have been renamed after its status was read under another name.
        const isRenamed = reads > 0 && inode !== undefined && inodes.has(inode);
        if (inode !== undefined) inodes.add(inode);
        children.set(name, isRenamed ? undefined : child);
      }
    }
    return children;
  }

  #add(entry: ScannedEntry): void {
    this.#addParents(entry.path);
    if (isFound(entry)) this.#changes.set(entry.path, entry);
    else this.#problems.set(entry.path, entry);
  }

  #addParents(path: string): void {
    const directory = this.#directories.get(parentPath(path));
    if (!directory || this.#changes.has(directory.path)) return;
    this.#addParents(directory.path);
    this.#listed?.parents.push(directory.path);
    this.#changes.set(directory.path, directory);
  }
}

/** Removes the chosen paths from a map, and returns them. */
function takeOut<T>(map: Map<string, T>, isChosen: (path: string, value: T) => boolean): Map<string, T> {
  const out = new Map<string, T>();
  for (const [path, value] of map) {
    if (!isChosen(path, value)) continue;
    out.set(path, value);
    map.delete(path);
  }
  return out;
}

function removedEntry(path: string): FoundFile {
  const noAttributes = { mode: 0, mtime: 0, changedAt: 0n, uid: 0, gid: 0, size: 0, status: "" };
  return { type: "removed", path, ...noAttributes };
}
