/**
 * The base: the files that a container starts with. Only differences from the base are saved. The last step of an image's build
 * writes a list of the base. A local sandbox has no image and few files on its root file system: there sandboxd writes the list
 * when it first starts, before any user program.
 */
import { createHash } from "node:crypto";
import { closeSync, lstatSync, mkdirSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { SNAPSHOT, textOf } from "../directories.ts";
import { parentPath, isOfState, pathIn } from "./scope.ts";
import { type FoundFile, isFound, namesIn, scanEntry } from "./file-status.ts";

const IMAGE_LIST = "/opt/sandbox-mcp/base.list";
const OWN_LIST = join(SNAPSHOT, "base.list");
/**
 * A file that sandboxd creates when the container starts, with the id of the system. Its status change time (ctime) is the time of
 * that start.
 */
const STARTED = join(SNAPSHOT, "started");
/** END ends a record, and names cannot contain it. DIRECTORY begins a directory's record, before its entries. */
const END = "\0";
const DIRECTORY = ":";

export class Base {
  readonly id: string;
  /** The entries of each directory, as records that are parsed on demand. */
  readonly #records: ReadonlyMap<string, string>;
  /**
   * When the container started, in nanoseconds since the epoch. Files of the image that are older than this count as unchanged. 0
   * if the list was made in this container: then only the list decides.
   */
  readonly #startedAt: bigint;

  constructor(list: string, startedAt = 0n) {
    const records = new Map<string, string>();
    for (let at = 0; at < list.length;) {
      const end = list.indexOf(END, at);
      const next = list.indexOf(END + DIRECTORY, end);
      const to = next < 0 ? list.length : next + 1;
      records.set(list.slice(at + 1, end), list.slice(end + 1, to));
      at = to;
    }
    this.id = createHash("sha256").update(identityOf(list)).digest("hex");
    this.#records = records;
    this.#startedAt = startedAt;
  }

  /** Returns the state of each entry of a directory, by name; undefined if the base has no such directory. */
  statesIn(directory: string): ReadonlyMap<string, string> | undefined {
    const records = this.#records.get(directory);
    if (records === undefined) return undefined;
    const states = new Map<string, string>();
    for (const record of records.split(END)) {
      const slash = record.indexOf("/");
      if (slash >= 0) states.set(record.slice(slash + 1), record.slice(0, slash));
    }
    return states;
  }

  stateAt(path: string): string | undefined {
    return this.statesIn(parentPath(path))?.get(path.slice(path.lastIndexOf("/") + 1));
  }

  hasDirectory(path: string): boolean {
    return this.#records.has(path);
  }

  /**
   * Whether a file is as in the base. Image builders may change times, and a Dockerfile may have further steps after
   * the one that writes the list. So in the image's directories, every file that is unchanged since the container's start counts
   * as the image's.
   */
  isUnchanged(found: FoundFile, state: string | undefined, isOfImage: boolean): boolean {
    return (
      (state !== undefined && state === stateOf(found)) || (isOfImage && found.changedAt < this.#startedAt)
    );
  }

  /** The versions of Python in the base, as names of directories such as `python3.12`. */
  get pythons(): ReadonlySet<string> {
    const names = [...this.#records.keys()].map((path) => path.slice(path.lastIndexOf("/") + 1));
    return new Set(names.filter((name) => /^python\d+\.\d+$/.test(name)));
  }
}

/** A file's state as text. Times are whole seconds, as in image layers. A directory's state excludes its content. */
function stateOf({ type, mode, uid, gid, size, mtime, target = "" }: FoundFile): string {
  const common = `${type} ${mode} ${uid} ${gid}`;
  if (type === "file") return `${common} ${size} ${Math.floor(mtime / 1e6)}`;
  return type === "symlink" ? `${type} ${encodeURIComponent(target).replaceAll("/", "%2F")}` : common;
}

/** Identifies an image. Leaves out times, because a list that sandboxd itself wrote has the times of the sandbox's start. */
function identityOf(list: string): string {
  const { arch, version } = process;
  return JSON.stringify([
    arch,
    version.split(".", 1),
    list.replace(/(file \d+ \d+ \d+ \d+) -?\d+\//g, "$1/"),
  ]);
}

export function listBase(root: string): string {
  const { dev } = lstatSync(root, { bigint: true });
  const devices = { dev, hasOneDevice: true };
  const list: string[] = [];
  const directories = [""];
  for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
    list.push(DIRECTORY + next);
    for (const name of namesIn(root, next) ?? []) {
      const path = pathIn(next, name);
      const entry = isOfState(path) ? scanEntry(root, path, devices) : undefined;
      if (!entry || !isFound(entry)) continue;
      list.push(`${stateOf(entry)}/${name}`);
      if (entry.type === "directory") directories.push(path);
    }
  }
  return list.join(END) + END;
}

export function writeList(root: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  const file = openSync(`${to}.new`, "w", 0o444);
  writeSync(file, Buffer.from(listBase(root), "latin1"));
  closeSync(file);
  renameSync(`${to}.new`, to);
}

/**
 * Records the base before any user program runs, and reads the record, because user programs can delete it. A restarted sandboxd
 * keeps the existing record.
 */
export function recordBase(root: string): void {
  if (textOf(STARTED) === undefined) {
    if (lstatSync(IMAGE_LIST, { throwIfNoEntry: false }) === undefined) writeList(root, OWN_LIST);
    mkdirSync(SNAPSHOT, { recursive: true });
    writeFileSync(STARTED, systemID(root));
  }
  const image = readList(IMAGE_LIST);
  const { ctimeNs } = lstatSync(STARTED, { bigint: true });
  record = {
    system: textOf(STARTED) ?? "",
    list: image ?? readList(OWN_LIST) ?? "",
    startedAt: image === undefined ? 0n : ctimeNs,
  };
}

let record = { system: "", list: "", startedAt: 0n };
let base: Base | undefined;

export function baseOfContainer(): Base {
  return (base ??= new Base(record.list, record.startedAt));
}

/** Identifies the system that the container started with. Packages that a user installs later do not change it. */
export const systemOfContainer = (): string => record.system;

/** The largest list in bytes: 200,000 files take 17 MB. */
const MAX_LIST_BYTES = 128 * 1024 * 1024;

function readList(path: string): string | undefined {
  return textOf(path, "latin1", MAX_LIST_BYTES);
}

/** SHA-256 of the machine's kind and of the versions that an installation depends on. */
export function systemID(root: string): string {
  const { arch, platform, version } = process;
  const files = ["etc/os-release", "var/lib/dpkg/status", "opt/venv/pyvenv.cfg"];
  const texts = files.map((file) => textOf(join(root, file)) ?? "");
  return createHash("sha256")
    .update(JSON.stringify([arch, platform, version, ...texts]))
    .digest("hex");
}
