import { execFile } from "node:child_process";
import { openAsBlob } from "node:fs";
import { mkdtemp, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { RpcTarget } from "capnweb";
import { makeDirectories } from "./directories.ts";
import { isSandboxError, messageOf, sandboxError, type ErrorCode } from "./errors.ts";

const run = promisify(execFile);

const WORK_DIRECTORY = "/var/backups";
/** The directories the SDK allows backups of. */
const ALLOWED = ["/workspace", "/home", "/tmp", "/var/tmp", "/app"];
const COMPRESSIONS = ["gzip", "lz4", "zstd"];
const UPLOAD_TIMEOUT_MS = 30 * 60 * 1000;
const UPLOAD_ATTEMPTS = 3;

interface ArchiveOptions {
  excludes?: string[];
  gitignore?: boolean;
  compression?: { format?: string; threads?: number };
}

interface UploadPart {
  partNumber: number;
  url: string;
  /** Bytes into the archive. */
  offset: number;
  size: number;
}

/**
 * `backup` of the control API. The container makes squashfs images and mounts them over the directory; here an archive
 * is a gzipped tar and restoring unpacks it in the directory's place. An archive of one cannot be read by the other.
 */
export class BackupAPI extends RpcTarget {
  /** Errors: INVALID_BACKUP_CONFIG, BACKUP_CREATE_FAILED. */
  async createArchive(dir: string, archivePath: string, _sessionId?: string, options: ArchiveOptions = {}) {
    checkPaths(dir, archivePath);
    const format = options.compression?.format ?? "lz4";
    if (!COMPRESSIONS.includes(format)) {
      throw invalid(`Invalid compression algorithm: ${format}. Expected one of: ${COMPRESSIONS.join(", ")}`);
    }
    const excludeFile = `${archivePath}.exclude`;
    return guarded("BACKUP_CREATE_FAILED", { dir, archivePath }, async () => {
      if (!(await stat(dir).catch(() => undefined))?.isDirectory()) {
        throw new Error(`Source directory does not exist: ${dir}`);
      }
      makeDirectories(dirname(archivePath));
      const ignored = options.gitignore ? await gitIgnored(dir) : [];
      // Names from git are literal and start at the directory; the caller's are globs that match at any depth.
      await writeFile(excludeFile, ignored.map((name) => `./${name}\0`).join(""));
      const globs = (options.excludes ?? []).map(withoutGlobstars).filter((glob) => glob !== "");
      const excluded = globs.flatMap((glob) => [`--exclude=./${glob}`, `--exclude=*/${glob}`]);
      try {
        const literal = ["--null", "--no-wildcards", "--anchored", "-X", excludeFile];
        const globbed = ["--wildcards", ...excluded];
        await run("tar", ["-czf", archivePath, "-C", dir, ...literal, ...globbed, "."]);
      } finally {
        await rm(excludeFile, { force: true });
      }
      return { success: true, sizeBytes: (await stat(archivePath)).size, archivePath };
    });
  }

  /** Puts the archive's content in the place of whatever is in the directory. Errors as above, BACKUP_RESTORE_FAILED. */
  async restoreArchive(dir: string, archivePath: string, _sessionId?: string) {
    checkPaths(dir, archivePath);
    return guarded("BACKUP_RESTORE_FAILED", { dir, archivePath }, async () => {
      await stat(archivePath).catch(() => {
        throw new Error(`Archive file does not exist: ${archivePath}`);
      });
      makeDirectories(dir);
      // Unpacked beside the old content first, so that a broken archive leaves it as it is.
      const fresh = await mkdtemp(join(dir, ".restore-"));
      try {
        await run("tar", ["-xpzf", archivePath, "-C", fresh]);
        for (const name of await readdir(dir)) {
          if (join(dir, name) !== fresh) await rm(join(dir, name), { recursive: true, force: true });
        }
        for (const name of await readdir(fresh)) await rename(join(fresh, name), join(dir, name));
      } finally {
        await rm(fresh, { recursive: true, force: true });
      }
      return { success: true, dir };
    });
  }

  /** Sends byte ranges of an archive to presigned URLs. Errors: INVALID_BACKUP_CONFIG, BACKUP_CREATE_FAILED. */
  async uploadParts({ archivePath, parts }: { archivePath: string; parts: UploadPart[] }) {
    if (parts.length === 0) return { success: true, parts: [] };
    checkArchive(archivePath);
    return guarded("BACKUP_CREATE_FAILED", { archivePath }, async () => {
      const uploaded = await Promise.all(parts.map((part) => upload(archivePath, part)));
      return { success: true, parts: uploaded.toSorted((a, b) => a.partNumber - b.partNumber) };
    });
  }
}

async function upload(archivePath: string, part: UploadPart): Promise<{ partNumber: number; etag: string }> {
  const { partNumber, url, offset, size } = part;
  for (let attempt = 1; ; attempt++) {
    try {
      const archive = await openAsBlob(archivePath);
      const response = await fetch(url, {
        method: "PUT",
        headers: { "content-type": "application/octet-stream" },
        body: archive.slice(offset, offset + size),
        signal: AbortSignal.timeout(UPLOAD_TIMEOUT_MS),
      });
      await response.body?.cancel();
      const etag = response.headers.get("etag")?.trim();
      if (!response.ok) throw new Error(`part ${partNumber} failed with HTTP ${response.status}`);
      if (!etag) throw new Error(`part ${partNumber} response did not include an ETag header`);
      return { partNumber, etag };
    } catch (error) {
      if (attempt < UPLOAD_ATTEMPTS) continue;
      throw new Error(`Multipart upload failed: ${messageOf(error)}`, { cause: error });
    }
  }
}

/** What git ignores in a directory, relative to it; nothing where there is no repository or no git. */
async function gitIgnored(dir: string): Promise<string[]> {
  try {
    const args = ["-C", dir, "ls-files", "-z", "--others", "-i", "--exclude-standard", "--", "."];
    const { stdout } = await run("git", args, { maxBuffer: 64 * 1024 * 1024 });
    return stdout.split("\0").filter((name) => name !== "");
  } catch {
    return [];
  }
}

/** `**` means nothing of its own here: patterns match at any depth already. */
function withoutGlobstars(pattern: string): string {
  return pattern
    .replace(/^(\*\*\/)+/, "")
    .replaceAll("/**/", "/")
    .replace(/\/\*\*$/, "")
    .replace(/^\*\*$/, "");
}

function checkPaths(dir: string, archivePath: string): void {
  if (!dir.startsWith("/") || dir.includes("..") || dir.includes("\0")) {
    throw invalid(`Backup directory must be a safe absolute path: ${dir}`);
  }
  if (!ALLOWED.some((prefix) => dir === prefix || dir.startsWith(`${prefix}/`))) {
    throw invalid(`Directory not in allowed paths (${ALLOWED.join(", ")}): ${dir}`);
  }
  checkArchive(archivePath);
}

function checkArchive(archivePath: string): void {
  if (!archivePath.startsWith(`${WORK_DIRECTORY}/`) || archivePath.includes("..")) {
    throw invalid(`Invalid archivePath: must be in ${WORK_DIRECTORY}`);
  }
}

function invalid(reason: string): Error {
  return sandboxError("INVALID_BACKUP_CONFIG", reason, { reason });
}

async function guarded<T>(
  code: ErrorCode,
  details: Record<string, unknown>,
  task: () => Promise<T>,
): Promise<T> {
  try {
    return await task();
  } catch (error) {
    throw isSandboxError(error) ? error : sandboxError(code, messageOf(error), details);
  }
}
