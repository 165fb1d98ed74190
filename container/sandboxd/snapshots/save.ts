/** One save: chooses the files, and yields the contents that are not stored yet. */
import { lstatSync } from "node:fs";
import { join } from "node:path";
import {
  type SavedSnapshot,
  SNAPSHOT_ENTRIES,
  MAX_LEFT,
  type Plan,
  type PlanCall,
  SNAPSHOT_BLOB_BYTES,
} from "./snapshot-requests.ts";
import { textOf } from "../directories.ts";
import { yieldBetweenSteps } from "../small-steps.ts";
import { compress } from "./codec.ts";
import {
  type Blob,
  type ManifestEntry,
  type FileEntry,
  type Header,
  bytesOf,
  requireReadable,
  writeManifest,
} from "./manifest.ts";
import { FileRead, hashOf, isZero } from "./file-read.ts";
import {
  type FoundFile,
  type ScannedEntry,
  attributesOf,
  contentOf,
  inodeOf,
  isGoneError,
  statusOf,
} from "./file-status.ts";
import { Mappings } from "./mappings.ts";
import { chooseFiles, firstNames } from "./scan.ts";
import { PACKAGE_LOCKS, kindOf, parentPath } from "./scope.ts";
import type { Index, Known } from "./state.ts";

const OPENED_AHEAD = 8;

/**
 * How often a save scans again because files were renamed before it had read them. A file that a program renames all the time may
 * need several scans. Each takes some ten milliseconds, and then the save reads only the renamed files.
 */
const MAX_SCANS = 8;

/** After further scans have read this many bytes (compressed), the save ends. Otherwise a program could make it many times larger. */
const MAX_RESCANNED_BYTES = 64 * 1024 * 1024;

/** How often a save scans again at least if directories still change: only then it can find new files that moved during the scan. */
const MIN_SCANS = 2;

/**
 * How often a save reads the content of a path. A program that replaces a large file all the time must not make a save several times
 * larger. After that, the save has the path's earlier content.
 */
const MAX_READS_OF_PATH = 2;

/** A scan that can be repeated. */
interface Rescan {
  /** Whether no directory had changed at the last check. */
  readonly isSettled: boolean;
  /** The files that were found, and gone later, by inode, with their last status; unless the scan is settled. */
  readonly gone?: ReadonlyMap<string, string>;
  again(signal: AbortSignal): Promise<readonly ScannedEntry[]>;
}

/** What one reading of the new contents has found so far. */
class Reading {
  entries: ManifestEntry[] = [];
  readonly index: Index = new Map();
  readonly unreadable = new Set<string>();
  packBytes = 0;
  manifest: Buffer | undefined;
  /** The files that were read or are stored, by inode, with their status at that time. */
  readonly #contents = new Map<string, { known: Known; status: string }>();
  /** The latest content of each path that was read, and how often it was read. */
  readonly #reads = new Map<string, { known: Known; count: number }>();
  /** The latest entry of each directory. */
  readonly #directories = new Map<string, Known>();
  readonly #missed = new Set<string>();
  /** The inodes of the entries. */
  readonly #added = new Set<string>();
  /** Whether entries were left out because their directories are missing. */
  hasOrphans = false;

  /** @param status the file's status when it was read. "" if the file is not read, because packages are being installed */
  add(known: Known, status: string): void {
    const { entry } = known;
    this.entries.push(entry);
    this.index.set(entry.path, known);
    if (entry.type === "directory") this.#directories.set(entry.path, known);
    if (entry.type !== "file" || status === "") return;
    this.#added.add(inodeOf(status));
    this.#contents.set(inodeOf(status), { known, status });
  }

  addRead(known: Known, status: string): void {
    this.add(known, status);
    const { path } = known.entry;
    this.#reads.set(path, { known, count: (this.#reads.get(path)?.count ?? 0) + 1 });
  }

  /** Returns the content of a path that was read often enough. The path has another file now. */
  earlierAt(path: string): Known | undefined {
    const read = this.#reads.get(path);
    return read && read.count >= MAX_READS_OF_PATH ? read.known : undefined;
  }

  /** Returns the content of a file that was read before, perhaps under another path. */
  contentOf({ path, status }: FoundFile): Known | undefined {
    const read = this.#contents.get(inodeOf(status));
    if (read === undefined) return undefined;
    // If the file was deleted, another one may have its inode. If it has the same path, the next save reads it.
    return read.known.entry.path === path || contentOf(read.status) === contentOf(status)
      ? read.known
      : undefined;
  }

  /** Notes that a file was gone before it was read. */
  miss({ status }: FoundFile): void {
    if (status !== "") this.#missed.add(inodeOf(status));
  }

  /** Whether the file was read, or is stored. */
  has(inode: string): boolean {
    return this.#contents.has(inode);
  }

  /** Whether the file is among the entries. */
  contains(inode: string): boolean {
    return this.#added.has(inode);
  }

  misses(inode: string): boolean {
    return this.#missed.has(inode);
  }

  get isMissing(): boolean {
    for (const inode of this.#missed) if (!this.has(inode)) return true;
    return false;
  }

  /** Begins again with the entries of another scan. What was read stays. */
  beginAgain(): void {
    this.entries = [];
    this.index.clear();
    this.unreadable.clear();
    this.#missed.clear();
    this.#added.clear();
  }

  /**
   * Adds the files that were read before, and that are not among the entries because they were renamed again. If there are too many
   * entries or bytes, leaves out the rest.
   * @param isSettled whether a file that the scan has not found was deleted
   * @param max the most bytes of all files
   */
  addLost(found: readonly FoundFile[], isSettled: boolean, max: number): void {
    const inodes = new Set(found.map(({ status }) => inodeOf(status)));
    const sizeOf = (entry: ManifestEntry) => (entry.type === "file" ? entry.size : 0);
    let bytes = this.entries.reduce((sum, entry) => sum + sizeOf(entry), 0);
    for (const [inode, { known, status }] of this.#contents) {
      if (this.entries.length >= SNAPSHOT_ENTRIES) return;
      const { path } = known.entry;
      if (bytes + sizeOf(known.entry) > max) continue;
      if (this.#added.has(inode) || this.index.has(path) || (isSettled && !inodes.has(inode))) continue;
      if (!this.#addDirectory(parentPath(path))) continue;
      this.add(known, status);
      bytes += sizeOf(known.entry);
    }
  }

  /** Adds a directory that was renamed too, with those above it. Returns whether the path is a directory, and a file has room. */
  #addDirectory(path: string): boolean {
    const known = this.index.get(path);
    if (known) return known.entry.type === "directory";
    const renamed = this.#directories.get(path);
    const parent = parentPath(path);
    if (!renamed || !(parent === "" || this.#addDirectory(parent))) return false;
    if (this.entries.length >= SNAPSHOT_ENTRIES - 1) return false;
    this.add(renamed, "");
    return true;
  }
}

export class Save {
  readonly id: string;
  readonly summary: Plan;
  readonly #root: string;
  #found: readonly FoundFile[];
  readonly #before: Index;
  readonly #repacked: ReadonlySet<string>;
  readonly #header: Header;
  readonly #mappings: Mappings;
  readonly #max: number;
  readonly #scan: Rescan | undefined;
  readonly #wasIncomplete: boolean;
  /** The latest reading, whose contents the server stores. */
  #reading = new Reading();
  #earlierFiles: ReadonlyMap<string, Known> | undefined;
  /** Whether packages were being installed during a scan. */
  #lacksPackages = false;

  /**
   * @param before the index of the last save or restore
   * @param options `wasIncomplete`: whether `before` may lack files of an earlier save
   * @param mappings read before the scan
   * @param scan repeats the scan
   */
  constructor(
    id: string,
    root: string,
    before: Index,
    { max, repack, wasIncomplete = false }: Pick<PlanCall, "max" | "repack"> & { wasIncomplete?: boolean },
    seen: readonly ScannedEntry[],
    header: Header = {},
    mappings = new Mappings(),
    scan?: Rescan,
  ) {
    this.#root = root;
    this.#before = before;
    this.#max = max;
    this.#scan = scan;
    this.#wasIncomplete = wasIncomplete;
    const { chosen, left } = this.#choose(seen);
    const files = chosen.filter(({ type }) => type === "file");
    const isSame =
      !this.#mayLackEarlier &&
      chosen.length === before.size &&
      chosen.every((found) => isUnchanged(found, before.get(found.path)));
    this.id = id;
    this.#found = chosen;
    this.#repacked = new Set(repack);
    this.#header = header;
    this.#mappings = mappings;
    this.summary = {
      state: isSame ? "unchanged" : "changed",
      files: files.length,
      bytes: files.reduce((sum, { size }) => sum + size, 0),
      isIncomplete: this.#lacksPackages,
      left,
    };
  }

  #choose(seen: readonly ScannedEntry[]): ReturnType<typeof chooseFiles> {
    const mustRestore = isInstalling(this.#root);
    this.#lacksPackages ||= mustRestore;
    return chooseFiles(mustRestore ? restoreSystemEntries(seen, this.#before) : seen, this.#max);
  }

  get index(): Index {
    return this.#reading.index;
  }

  /**
   * Yields the new contents. If files were renamed before they were read, it finds them again. Each call starts from the beginning,
   * because the server repeats a request whose connection broke. The earlier call may still run.
   */
  async *pack(signal: AbortSignal): AsyncGenerator<Buffer> {
    const reading = (this.#reading = new Reading());
    const stored = this.#storedBlobs();
    const scan = this.#scan;
    let found = this.#found;
    yield* this.#read(found, stored, reading, signal);
    const { packBytes } = reading;
    let scans = 0;
    const mustScan = () =>
      scans < MAX_SCANS &&
      reading.packBytes - packBytes < MAX_RESCANNED_BYTES &&
      (!this.#isComplete(reading, found) || (scan?.isSettled === false && scans < MIN_SCANS));
    if (!scan || !mustScan()) return;
    for (; mustScan(); scans++) {
      this.#found = found = this.#choose(await scan.again(signal)).chosen;
      reading.beginAgain();
      // What was not read yet comes first, before it is renamed again.
      const unread = found.filter(({ type, status }) => type === "file" && !reading.has(inodeOf(status)));
      yield* this.#read(unread, stored, reading, signal);
    }
    reading.beginAgain();
    yield* this.#read(found, stored, reading, signal);
    omitLostLinks(reading);
    reading.addLost(found, scan.isSettled, this.#max);
  }

  /** Whether each file that existed during the whole save was read, as far as the save can know. */
  #isComplete(reading: Reading, found: readonly FoundFile[]): boolean {
    if (reading.isMissing) return false;
    if (!this.#scan || this.#scan.isSettled) return true;
    for (const inode of this.#scan.gone?.keys() ?? []) if (!reading.has(inode)) return false;
    const paths = new Set(found.map(({ path }) => path));
    const isThere = (inode: string, path: string) => reading.has(inode) || paths.has(path);
    return !this.#missesEarlier(isThere);
  }

  /** Whether a file of the last save is missing. Its program may have deleted it, or renamed it during the scan. */
  #missesEarlier(isThere: (inode: string, path: string, status: string) => boolean): boolean {
    for (const { entry, status = "", inode = inodeOf(status) } of this.#before.values())
      if (entry.type === "file" && inode !== "" && !isThere(inode, entry.path, status)) return true;
    return false;
  }

  /** Whether files may be missing that an earlier save had, and that the last save lacked. Only a settled scan has found them. */
  get #mayLackEarlier(): boolean {
    return this.#wasIncomplete && this.#scan?.isSettled === false;
  }

  /** Whether a file of an earlier save may be missing after all scans. */
  get mayLackFiles(): boolean {
    const reading = this.#reading;
    if (!this.#scan) return false;
    const { isSettled, gone } = this.#scan;
    // Several listings have a file that a program renames all the time in at least one place. A file in none of them was deleted. Its
    // inode may be another file's by now.
    const wasFound = (inode: string, status: string) => {
      const last = gone?.get(inode);
      return last !== undefined && (status === "" || contentOf(last) === contentOf(status));
    };
    const mayBeDeleted = (inode: string, path: string, status: string) =>
      !reading.misses(inode) && (isSettled || this.index.has(path) || !wasFound(inode, status));
    return (
      this.#mayLackEarlier ||
      reading.hasOrphans ||
      this.#missesEarlier((inode, ...at) => reading.contains(inode) || mayBeDeleted(inode, ...at))
    );
  }

  async *#read(
    files: readonly FoundFile[],
    stored: Map<string, Blob>,
    reading: Reading,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer> {
    const links = new Map<string, string>();
    const ahead: { found: FoundFile; opened: Promise<Known | FileRead | undefined> }[] = [];
    const rest = files.values();
    const turn = yieldBetweenSteps();
    try {
      for (;;) {
        await turn();
        for (const found of rest.take(OPENED_AHEAD - ahead.length))
          ahead.push({ found, opened: this.#open(found, links, reading) });
        const next = ahead[0];
        if (!next) return;
        signal.throwIfAborted();
        const opened = await next.opened;
        if (opened instanceof FileRead) yield* this.#saveFile(next.found, opened, stored, reading);
        else if (opened) {
          const isEarlier = opened === reading.earlierAt(next.found.path);
          reading.add(opened, isEarlier ? "" : next.found.status);
        }
        ahead.shift();
      }
    } finally {
      for (const { opened } of ahead)
        await opened.then((file) => (file instanceof FileRead ? file.close() : undefined));
    }
  }

  #storedBlobs(): Map<string, Blob> {
    const stored = new Map<string, Blob>();
    for (const { entry } of this.#before.values())
      if (entry.type === "file")
        for (const blob of entry.blobs)
          if (blob && !this.#repacked.has(blob.pack)) stored.set(blob.hash, blob);
    return stored;
  }

  async *#saveFile(
    file: FoundFile,
    opened: FileRead,
    stored: Map<string, Blob>,
    reading: Reading,
  ): AsyncGenerator<Buffer> {
    const { path } = file;
    const statusAtOpen = statusOf(opened.stats);
    const isOther = inodeOf(statusAtOpen) !== inodeOf(file.status);
    if (isOther) reading.miss(file);
    const blobs: FileEntry["blobs"] = [];
    let size = 0;
    for (;;) {
      const bytes = await opened.next(size);
      if (bytes === undefined) {
        reading.unreadable.add(path);
        return await opened.close();
      }
      // An open file takes up space even after the user has deleted it. So a deleted file is closed before the save ends.
      if (await opened.isDeleted()) {
        reading.miss(file);
        return await opened.close();
      }
      if (bytes.length === 0) break;
      size += bytes.length;
      if (isZero(bytes)) blobs.push(null);
      else {
        const hash = hashOf(bytes);
        let blob = stored.get(hash);
        if (!blob) {
          const { bytes: packed, codec } = await compress(bytes);
          blob = { hash, pack: this.id, offset: reading.packBytes, length: packed.length, codec };
          stored.set(hash, blob);
          reading.packBytes += packed.length;
          yield packed;
        }
        blobs.push(blob);
      }
      // The next save reads the rest of a growing file.
      if (bytes.length < SNAPSHOT_BLOB_BYTES) break;
    }
    const status = await opened.end();
    const accessed = this.#mappings.lastAccess(opened.stats);
    const attributes = isOther ? attributesOf(opened.stats) : ownerAndTime(file);
    const entry = { type: "file" as const, path, ...attributes, size, blobs };
    reading.addRead({ entry, status, accessed, inode: inodeOf(statusAtOpen) }, statusAtOpen);
  }

  /** Returns an entry whose content is stored or empty, a file to read, or undefined if the file is gone or unreadable. */
  async #open(
    file: FoundFile,
    links: Map<string, string>,
    reading: Reading,
  ): Promise<Known | FileRead | undefined> {
    const { path, type, target = "", inode } = file;
    const common = { path, ...ownerAndTime(file) };
    if (type === "directory" || type === "removed")
      return { entry: { type, ...common }, status: file.status };
    if (type === "symlink") return { entry: { type, ...common, target }, status: file.status };
    const first = inode === undefined ? undefined : links.get(inode);
    if (first !== undefined)
      return { entry: { type: "hardlink", ...common, target: first }, status: file.status };
    if (inode !== undefined) links.set(inode, path);
    const before = this.#before.get(path);
    // While a package manager runs, `restoreSystemEntries` gives its files their last saved status, or "" if they have none.
    if (before?.entry.type === "file" && (before.status ?? "") === file.status) {
      if (this.#isStored(before.entry))
        return { ...before, entry: { ...before.entry, ...common }, status: file.status };
    }
    const read = reading.contentOf(file);
    if (read?.entry.type === "file") return { ...read, entry: { ...read.entry, ...common } };
    const earlier = reading.earlierAt(path);
    if (earlier) return earlier;
    try {
      const opened = await FileRead.open(bytesOf(this.#root, path), file.size);
      if (opened) return opened;
    } catch (error) {
      if (!isGoneError(error)) {
        reading.unreadable.add(path);
        return undefined;
      }
    }
    // While programs change directories, the file was probably renamed again, and not deleted.
    const last = this.#scan?.isSettled === false ? this.#lastContentOf(file) : undefined;
    if (last && reading.contains(inodeOf(file.status))) return undefined;
    // With its earlier status: the next save reads the file if its status differs from that.
    if (last) return { ...last, entry: { ...last.entry, ...common } };
    reading.miss(file);
    return undefined;
  }

  /** The content that the last save has of a file, perhaps under another path, if the file has not changed since. */
  #lastContentOf({ status }: FoundFile): Known | undefined {
    this.#earlierFiles ??= new Map(
      Array.from(this.#before.values())
        .filter(({ entry }) => entry.type === "file")
        .map((known) => [inodeOf(known.status ?? ""), known] as const),
    );
    const last = status === "" ? undefined : this.#earlierFiles.get(inodeOf(status));
    if (last?.entry.type !== "file" || contentOf(last.status ?? "") !== contentOf(status)) return undefined;
    return this.#isStored(last.entry) ? last : undefined;
  }

  /** Whether the content stays where the last save stored it. */
  #isStored({ blobs }: FileEntry): boolean {
    return blobs.every((blob) => !blob || !this.#repacked.has(blob.pack));
  }

  async manifest(): Promise<Buffer> {
    const reading = this.#reading;
    omitOrphans(reading);
    omitLostLinks(reading);
    if (!reading.manifest) {
      await requireReadable(reading.entries);
      reading.manifest = await writeManifest(reading.entries, this.#header);
    }
    return reading.manifest;
  }

  async finish(): Promise<SavedSnapshot> {
    const manifestBytes = (await this.manifest()).length;
    const { entries, packBytes, unreadable: failed } = this.#reading;
    const files = entries.filter((entry) => entry.type === "file");
    const blobs = new Map(
      files.flatMap((file) => file.blobs.flatMap((blob) => (blob ? [[blob.hash, blob] as const] : []))),
    );
    const live = new Map<string, number>();
    if (packBytes > 0) live.set(this.id, 0);
    for (const { pack, length } of blobs.values()) live.set(pack, (live.get(pack) ?? 0) + length);
    const packs = Array.from(live, ([id, bytes]) => ({
      id,
      live: bytes,
      length: id === this.id ? packBytes : bytes,
    }));
    const bytes = files.reduce((sum, { size }) => sum + size, 0);
    const { count = 0, names = [] } = this.summary.left.unreadable ?? {};
    const more = firstNames([...failed].sort());
    const unreadable = more && {
      count: count + more.count,
      names: [...names, ...more.names].slice(0, MAX_LEFT),
    };
    return {
      packs,
      manifestBytes,
      files: files.length,
      bytes,
      unreadable: unreadable ?? this.summary.left.unreadable,
      isIncomplete: this.#lacksPackages || this.mayLackFiles,
    };
  }
}

/** Leaves out entries whose directories were renamed or deleted before the save found them there. */
function omitOrphans(reading: Reading): void {
  const directories = new Set([""]);
  reading.entries = reading.entries.filter(({ type, path }) => {
    if (!directories.has(parentPath(path))) {
      reading.index.delete(path);
      reading.hasOrphans = true;
      return false;
    }
    if (type === "directory") directories.add(path);
    return true;
  });
}

/** Leaves out hard links to a file that disappeared before it was read. The next save handles them. */
function omitLostLinks(reading: Reading): void {
  const { entries, unreadable } = reading;
  const files = new Set(entries.filter(({ type }) => type === "file").map(({ path }) => path));
  reading.entries = entries.filter((entry) => {
    if (entry.type !== "hardlink" || files.has(entry.target)) return true;
    if (unreadable.has(entry.target)) unreadable.add(entry.path);
    return false;
  });
}

const ownerAndTime = ({ mode, mtime, uid, gid }: FoundFile) => ({ mode, mtime, uid, gid });

function isUnchanged(found: FoundFile, before: Known | undefined): boolean {
  if (before?.status === undefined) return false;
  const { entry } = before;
  const type = entry.type === "hardlink" ? "file" : entry.type;
  if (found.type !== type || found.mode !== entry.mode) return false;
  if (found.uid !== entry.uid || found.gid !== entry.gid) return false;
  if (type === "directory") return true;
  return before.status === found.status;
}

function isInstalling(root: string): boolean {
  const inodes = PACKAGE_LOCKS.flatMap(
    (path) => lstatSync(join(root, path), { throwIfNoEntry: false })?.ino ?? [],
  );
  const locks = inodes.length === 0 ? "" : (textOf("/proc/locks") ?? "");
  return inodes.some((inode) => locks.includes(`:${inode} `));
}

/** Replaces the package manager's files with their last saved state, because their state during an installation is inconsistent. */
function restoreSystemEntries(seen: readonly ScannedEntry[], before: Index): ScannedEntry[] {
  const isOfSystem = (path: string) => kindOf(path) === "system";
  const entries = new Map(seen.map((entry) => [entry.path, entry]));
  for (const { path, type } of seen) if (isOfSystem(path) && type !== "directory") entries.delete(path);
  for (const { entry, status = "" } of before.values()) {
    if (!isOfSystem(entry.path)) continue;
    const { path, mode, mtime, uid, gid } = entry;
    const common = { path, mode, mtime, changedAt: 0n, uid, gid, size: 0, status };
    if (entry.type === "symlink") entries.set(path, { ...common, type: "symlink", target: entry.target });
    else if (entry.type === "directory" || entry.type === "removed")
      entries.set(path, { ...common, type: entry.type });
    else {
      const first = entry.type === "file" ? entry : before.get(entry.target)?.entry;
      const size = first?.type === "file" ? first.size : 0;
      entries.set(path, { ...common, type: "file", size, inode: first?.path });
    }
  }
  return [...entries.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}
