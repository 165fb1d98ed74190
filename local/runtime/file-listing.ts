import { type BigIntStats, lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** One entry of a directory, as the SDK's `FileInfo`. */
export interface FileInfo {
  name: string;
  absolutePath: string;
  /** Relative to the listed directory. */
  relativePath: string;
  type: "file" | "directory" | "symlink" | "other";
  /** Bytes; of a symlink, the length of its target. */
  size: number;
  /** Local time with ten digits of a second and no zone, as `find -printf` writes it. */
  modifiedAt: string;
  /** For example `rw-r--r--`. */
  mode: string;
  /** The owner's. */
  permissions: { readable: boolean; writable: boolean; executable: boolean };
}

export interface ListOptions {
  recursive?: boolean;
  /** Entries whose own name starts with a dot. What is inside a hidden directory is listed either way, as by `find`. */
  includeHidden?: boolean;
}

/** How many entries are read before other work gets its turn. */
const BATCH = 500;

/** Lists a directory. Symlinks are listed and not followed; what vanishes meanwhile is left out. */
export async function listDirectory(
  directory: string,
  shownAs: string,
  options: ListOptions,
): Promise<FileInfo[]> {
  const files: FileInfo[] = [];
  const open: { directory: string; relative: string }[] = [{ directory, relative: "" }];
  const base = shownAs.endsWith("/") ? shownAs.slice(0, -1) : shownAs;
  for (let next = open.pop(), seen = 0; next; next = open.pop()) {
    for (const name of namesIn(next.directory, next.directory === directory).toSorted()) {
      if (++seen % BATCH === 0) await new Promise((resolve) => setImmediate(resolve));
      const path = join(next.directory, name);
      const stats = lstatSync(path, { bigint: true, throwIfNoEntry: false });
      if (!stats) continue;
      const relativePath = next.relative === "" ? name : `${next.relative}/${name}`;
      if (options.recursive && stats.isDirectory()) open.push({ directory: path, relative: relativePath });
      if (!options.includeHidden && name.startsWith(".")) continue;
      files.push(fileInfo(name, `${base}/${relativePath}`, relativePath, stats));
    }
  }
  return files;
}

function namesIn(directory: string, required: boolean): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (required) throw error;
    return [];
  }
}

function fileInfo(name: string, absolutePath: string, relativePath: string, stats: BigIntStats): FileInfo {
  const mode = Number(stats.mode);
  return {
    name,
    absolutePath,
    relativePath,
    type: stats.isFile()
      ? "file"
      : stats.isDirectory()
        ? "directory"
        : stats.isSymbolicLink()
          ? "symlink"
          : "other",
    size: Number(stats.size),
    modifiedAt: timeOf(stats),
    mode: [6, 3, 0].map((shift) => triplet(mode >> shift)).join(""),
    permissions: {
      readable: (mode & 0o400) !== 0,
      writable: (mode & 0o200) !== 0,
      executable: (mode & 0o100) !== 0,
    },
  };
}

function triplet(bits: number): string {
  return `${bits & 4 ? "r" : "-"}${bits & 2 ? "w" : "-"}${bits & 1 ? "x" : "-"}`;
}

function timeOf(stats: BigIntStats): string {
  const at = new Date(Number(stats.mtimeMs));
  const local = new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
  return `${local}.${String(stats.mtimeNs % 1_000_000_000n).padStart(9, "0")}0`;
}
