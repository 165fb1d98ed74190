/** One save: chooses the files, and yields the contents that are not stored yet. */
import { lstatSync } from "node:fs";
import { join } from "node:path";
import {
  type SavedSnapshot,
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
import { type FoundFile, type ScannedEntry, isGoneError } from "./file-status.ts";
import { Mappings } from "./mappings.ts";
import { chooseFiles, firstNames } from "./scan.ts";
import { PACKAGE_LOCKS, kindOf } from "./scope.ts";
import type { Index, Known } from "./state.ts";

const OPENED_AHEAD = 8;

/** What one reading of the new contents has found so far. */
class Reading {
  entries: ManifestEntry[] = [];
  readonly index: Index = new Map();
  readonly unreadable = new Set<string>();
  packBytes = 0;
  manifest: Buffer | undefined;

  add(known: Known): void {
    this.entries.push(known.entry);
    this.index.set(known.entry.path, known);
  }
}

export class Save {
  readonly id: string;
  readonly summary: Plan;
  readonly #root: string;
  readonly #found: readonly FoundFile[];
  readonly #before: Index;
  readonly #repacked: ReadonlySet<string>;
  readonly #header: Header;
  readonly #mappings: Mappings;
  /** The latest reading, whose contents the server stores. */
  #reading = new Reading();

  /** @param before the index of the last save or restore @param mappings read before the scan */
  constructor(
    id: string,
    root: string,
    before: Index,
    { max, repack }: Pick<PlanCall, "max" | "repack">,
    seen: readonly ScannedEntry[],
    header: Header = {},
    mappings = new Mappings(),
  ) {
    const { chosen, left } = chooseFiles(isInstalling(root) ? restoreSystemEntries(seen, before) : seen, max);
    const files = chosen.filter(({ type }) => type === "file");
    const isSame =
      chosen.length === before.size && chosen.every((found) => isUnchanged(found, before.get(found.path)));
    this.id = id;
    this.#root = root;
    this.#found = chosen;
    this.#before = before;
    this.#repacked = new Set(repack);
    this.#header = header;
    this.#mappings = mappings;
    this.summary = {
      state: isSame ? "unchanged" : "changed",
      files: files.length,
      bytes: files.reduce((sum, { size }) => sum + size, 0),
      left,
    };
  }

  get index(): Index {
    return this.#reading.index;
  }

  /**
   * Yields the new contents. Each call starts from the beginning, because the server repeats a request whose connection broke. The
   * earlier call may still run.
   */
  async *pack(signal: AbortSignal): AsyncGenerator<Buffer> {
    const reading = (this.#reading = new Reading());
    const stored = this.#storedBlobs();
    const links = new Map<string, string>();
    const ahead: { found: FoundFile; opened: Promise<Known | FileRead | undefined> }[] = [];
    const rest = this.#found.values();
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
        else if (opened) reading.add(opened);
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
    const blobs: FileEntry["blobs"] = [];
    let size = 0;
    for (;;) {
      const bytes = await opened.next(size);
      if (bytes === undefined) {
        reading.unreadable.add(path);
        return await opened.close();
      }
      // An open file takes up space even after the user has deleted it. So a deleted file is closed before the save ends.
      if (await opened.isDeleted()) return await opened.close();
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
    reading.add({ entry: { type: "file", path, ...ownerAndTime(file), size, blobs }, status, accessed });
  }

  /** Returns an entry whose content is stored or empty, a file to read, or undefined if the file is gone or unreadable. */
  async #open(
    file: FoundFile,
    links: Map<string, string>,
    { unreadable }: Reading,
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
      const isStored = before.entry.blobs.every((blob) => !blob || !this.#repacked.has(blob.pack));
      if (isStored) return { ...before, entry: { ...before.entry, ...common }, status: file.status };
    }
    try {
      return await FileRead.open(bytesOf(this.#root, path), file.size);
    } catch (error) {
      if (!isGoneError(error)) unreadable.add(path);
      return undefined;
    }
  }

  async manifest(): Promise<Buffer> {
    const reading = this.#reading;
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
    };
  }
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
  if (found.uid !== (entry.uid ?? 0) || found.gid !== (entry.gid ?? 0)) return false;
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
    const { path, mode, mtime, uid = 0, gid = 0 } = entry;
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
