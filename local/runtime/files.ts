import { existsSync, type Stats } from "node:fs";
import { lstat, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { makeDirectories } from "./directories.ts";
import { errnoOf, isSandboxError, messageOf, sandboxError, validationError } from "./errors.ts";
import { isBinaryType, mimeType, SNIFF_BYTES } from "./mime.ts";

/** The container's limit on a `readFile` that returns a string. */
export const MAX_ENCODED_FILE_BYTES = 32 * 1024 * 1024;

const MAX_PATH_LENGTH = 4096;

export interface FileContent {
  content: string;
  encoding: "utf-8" | "base64";
  isBinary: boolean;
  mimeType: string;
  size: number;
}

/**
 * The sandbox's files, through Node rather than the session's shell: a call does not wait for the command the session
 * is running. Relative paths start at the directory `directoryOf` gives.
 */
export class Files {
  readonly #directoryOf: (sessionID: string) => string;

  constructor(directoryOf: (sessionID: string) => string) {
    this.#directoryOf = directoryOf;
  }

  /** Errors: FILE_NOT_FOUND (also for a directory), FILE_TOO_LARGE above 32 MiB. */
  async read(path: string, sessionID: string, encoding?: string): Promise<FileContent> {
    const target = this.#resolve(path, sessionID);
    return guarded("file.read", path, `Failed to read file '${path}'`, async () => {
      const stats = await this.#fileStats(target, path);
      if (stats.size > MAX_ENCODED_FILE_BYTES) {
        throw sandboxError(
          "FILE_TOO_LARGE",
          `File too large. Size ${stats.size} bytes exceeds the 32 MiB limit. Use readFile() with { encoding: 'none' } for large files.`,
          { path, operation: "file.read", actualSize: stats.size, maxSize: MAX_ENCODED_FILE_BYTES },
        );
      }
      const bytes = await readFile(target);
      const type = mimeType(target, bytes.subarray(0, SNIFF_BYTES));
      const wantsText = encoding === "utf-8" || encoding === "utf8";
      const base64 = encoding === "base64" || (!wantsText && isBinaryType(type));
      return {
        content: bytes.toString(base64 ? "base64" : "utf8"),
        encoding: base64 ? "base64" : "utf-8",
        isBinary: base64,
        mimeType: type,
        size: bytes.length,
      };
    });
  }

  /** Writes in place and makes missing parents. Errors: VALIDATION_FAILED (not base64), FILESYSTEM_ERROR. */
  async write(path: string, content: string, sessionID: string, encoding = "utf-8"): Promise<void> {
    const target = this.#resolve(path, sessionID);
    if (encoding === "base64" && !/^[A-Za-z0-9+/=]*$/.test(content)) {
      throw validationError(
        "content",
        `Invalid base64 content for '${path}': must contain only A-Z, a-z, 0-9, +, /, =`,
        "Invalid base64 characters",
      );
    }
    await guarded("file.write", path, `Failed to write file '${path}'`, async () => {
      // To open a pipe that nobody reads would occupy one of the few threads for file work until somebody does.
      if ((await stat(target).catch(() => undefined))?.isFIFO()) throw new Error("not a regular file");
      const data = encoding === "base64" ? Buffer.from(content, "base64") : content;
      try {
        await writeFile(target, data);
      } catch (error) {
        if (errnoOf(error) !== "ENOENT") throw error;
        makeDirectories(dirname(target));
        await writeFile(target, data);
      }
    });
  }

  /** Errors: FILE_NOT_FOUND, IS_DIRECTORY, FILESYSTEM_ERROR. */
  async delete(path: string, sessionID: string): Promise<void> {
    const target = this.#resolve(path, sessionID);
    await guarded("file.delete", path, `Failed to delete file '${path}'`, async () => {
      const stats = await lstat(target).catch(() => undefined);
      if (!stats) throw notFound(`File not found: ${path}`, path, "file.delete");
      if (stats.isDirectory()) {
        throw sandboxError("IS_DIRECTORY", `Cannot delete directory with deleteFile() at '${path}'.`, {
          path,
          operation: "file.delete",
        });
      }
      await rm(target);
    });
  }

  exists(path: string, sessionID: string): boolean {
    return existsSync(this.#resolve(path, sessionID));
  }

  /** The absolute path. Error: VALIDATION_FAILED. */
  #resolve(path: string, sessionID: string): string {
    const reason = pathProblem(path);
    if (reason) throw validationError("path", `Invalid path format for '${path}': ${reason}`, reason);
    return path.startsWith("/") ? path : resolve(this.#directoryOf(sessionID), path);
  }

  async #fileStats(target: string, path: string): Promise<Stats> {
    const stats = await stat(target).catch((error: unknown) => {
      if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
      throw error;
    });
    if (!stats || stats.isDirectory()) throw notFound(`File not found: ${path}`, path, "file.read");
    if (!stats.isFile()) throw new Error("not a regular file");
    return stats;
  }
}

function pathProblem(path: unknown): string | undefined {
  if (typeof path !== "string" || path === "") return "Path must be a non-empty string";
  if (path.includes("\0")) return "Path contains null bytes";
  if (path.length > MAX_PATH_LENGTH) return `Path too long (max ${MAX_PATH_LENGTH} characters)`;
  return undefined;
}

function notFound(message: string, path: string, operation: string): Error {
  return sandboxError("FILE_NOT_FOUND", message, { path, operation });
}

/** Turns what the system refuses into FILESYSTEM_ERROR, the container's code for all of it. */
async function guarded<T>(
  operation: string,
  path: string,
  failure: string,
  task: () => Promise<T>,
): Promise<T> {
  try {
    return await task();
  } catch (error) {
    if (isSandboxError(error)) throw error;
    const reason = messageOf(error);
    throw sandboxError("FILESYSTEM_ERROR", `${failure}: ${reason}`, { path, operation, stderr: reason });
  }
}
