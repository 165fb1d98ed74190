/**
 * A snapshot's manifest: compressed lines of JSON. The first line has the version and the image. Each other line is an entry, a
 * difference from that image; directories come before their content. User code may have written the manifest, so every part of it is
 * checked.
 */
import * as z from "zod/mini";
import { SNAPSHOT_BLOB_BYTES, SNAPSHOT_ENTRIES, count } from "./snapshot-requests.ts";
import { FileError } from "../file-error.ts";
import { yieldBetweenSteps } from "../small-steps.ts";
import { compress, decompress } from "./codec.ts";
import { parentPath } from "./scope.ts";

const VERSION = 1;

const headerSchema = z.object({
  version: z.literal(VERSION),
  /** The base's id; see base.ts. Missing in a task's conversation, and in the workspace of a sandbox without isolation. */
  image: z.optional(z.string().check(z.maxLength(100))),
  node: z.optional(z.string().check(z.maxLength(100))),
});

export type Header = Omit<z.infer<typeof headerSchema>, "version">;

export type Manifest = z.infer<typeof headerSchema> & { entries: ManifestEntry[] };

const MAX_MANIFEST_BYTES = 512 * 1024 * 1024;

/** The id of a user or group. 2³² - 1 is not allowed, because the system takes it to mean that the owner stays. */
const owner = () => z.number().check(z.int(), z.gte(0), z.lte(2 ** 32 - 2));

/** Only Latin-1, one byte per character. A higher character would be cut to its lower byte, which may be a slash. */
// oxlint-disable-next-line no-control-regex
const BYTES = /^[\x01-\xff]+$/;

const path = () =>
  z.string().check(
    z.maxLength(65_536),
    z.regex(BYTES),
    z.refine((name) => name.split("/").every((part) => !["", ".", ".."].includes(part))),
  );

const common = {
  /** The path relative to the root, as Latin-1: one character for each byte. */
  path: path(),
  mode: z.number().check(z.int(), z.gte(0), z.lte(0o7777)),
  /** Microseconds since the epoch. Not an integer: distant times are not exact to the microsecond. */
  mtime: z.number(),
  uid: owner(),
  gid: owner(),
};

const blob = z.object({
  /** SHA-256 of the uncompressed bytes. */
  hash: z.string().check(z.regex(/^[0-9a-f]{64}$/)),
  pack: z.string().check(z.regex(/^[0-9a-f-]{1,64}$/)),
  offset: count(),
  length: count(),
  codec: z.enum(["raw", "zstd", "deflate"]),
});

export type Blob = z.infer<typeof blob>;

export const entrySchema = z.discriminatedUnion("type", [
  /** `blobs` has an entry for each `SNAPSHOT_BLOB_BYTES` of the file. The entry is null if all of these bytes are zero. */
  z.object({ type: z.literal("file"), ...common, size: count(), blobs: z.array(z.nullable(blob)) }),
  z.object({ type: z.literal("directory"), ...common }),
  z.object({ type: z.literal("removed"), ...common }),
  z.object({
    type: z.literal("symlink"),
    ...common,
    target: z.string().check(z.maxLength(65_536), z.regex(BYTES)),
  }),
  /** `target` is the path of the first of a file's hard links. */
  z.object({ type: z.literal("hardlink"), ...common, target: path() }),
]);

export type ManifestEntry = z.infer<typeof entrySchema>;
export type FileEntry = Extract<ManifestEntry, { type: "file" }>;

/**
 * @throws {FileError} if the manifest is larger than `readManifest` accepts, for example because of long links. It can have more
 * entries than a scan while packages are installed, because then files of the last save count too
 */
export async function writeManifest(
  entries: readonly ManifestEntry[],
  header: Header = {},
  maxBytes = MAX_MANIFEST_BYTES,
): Promise<Buffer> {
  if (entries.length > SNAPSHOT_ENTRIES) throw new FileError({ problem: "too_large" });
  const lines = [JSON.stringify({ version: VERSION, ...header })];
  const turn = yieldBetweenSteps();
  let bytes = Buffer.byteLength(lines.join());
  for (const entry of entries) {
    await turn();
    const line = JSON.stringify(entry);
    bytes += 1 + Buffer.byteLength(line);
    if (bytes > maxBytes) throw new FileError({ problem: "too_large" });
    lines.push(line);
  }
  return (await compress(Buffer.from(lines.join("\n"), "utf8"))).bytes;
}

/** Reads a manifest. Its entries are unique, and each follows its directory. @throws Error if it is invalid */
export async function readManifest(bytes: Buffer): Promise<Manifest> {
  const text = (await decompress(bytes, undefined, MAX_MANIFEST_BYTES)).toString("utf8");
  // The limit of `split` allows one line too many, so that the next check finds the excess without memory for all lines.
  const [first = "", ...lines] = text.split("\n", SNAPSHOT_ENTRIES + 2);
  const header = headerSchema.parse(JSON.parse(first));
  if (lines.length > SNAPSHOT_ENTRIES) throw new Error("too many entries");
  const check = entryCheck();
  const entries: ManifestEntry[] = [];
  const turn = yieldBetweenSteps();
  for (const line of lines) {
    await turn();
    const entry = entrySchema.parse(JSON.parse(line));
    check(entry);
    entries.push(entry);
  }
  return { ...header, entries };
}

/** @throws Error if entries do not belong together, so that `readManifest` would refuse them. The save must fail, not the restore */
export async function requireReadable(entries: readonly ManifestEntry[]): Promise<void> {
  const turn = yieldBetweenSteps();
  const check = entryCheck();
  for (const entry of entries) {
    await turn();
    check(entry);
  }
}

/** Returns a function that checks the entries of a manifest, one after the other. It throws an Error. */
function entryCheck(): (entry: ManifestEntry) => void {
  const typesByPath = new Map<string, ManifestEntry["type"]>();
  return (entry) => {
    const parent = parentPath(entry.path);
    if (typesByPath.has(entry.path)) throw new Error("a path occurs twice");
    if (parent !== "" && typesByPath.get(parent) !== "directory")
      throw new Error("a path's directory is missing");
    if (entry.type === "hardlink" && typesByPath.get(entry.target) !== "file")
      throw new Error("a hard link's target is missing");
    if (entry.type === "file" && entry.blobs.length !== Math.ceil(entry.size / SNAPSHOT_BLOB_BYTES))
      throw new Error("a file's size does not match its blobs");
    typesByPath.set(entry.path, entry.type);
  };
}

export function plainBytes(size: number, index: number): number {
  return Math.min(SNAPSHOT_BLOB_BYTES, size - index * SNAPSHOT_BLOB_BYTES);
}

export function bytesOf(root: string, name: string): Buffer {
  return Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, "latin1")]);
}
