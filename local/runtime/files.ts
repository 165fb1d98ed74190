import { existsSync } from "node:fs";
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { makeDirectories } from "./directories.ts";
import { errnoOf, isSandboxError, messageOf, sandboxError, validationError } from "./errors.ts";

/** The container's limit on a `readFile` that returns a string. */
const MAX_ENCODED_FILE_BYTES = 32 * 1024 * 1024;

const MAX_PATH_LENGTH = 4096;

export interface FileContent {
  content: string;
  encoding: "utf-8" | "base64";
  isBinary: boolean;
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

  /** Errors: FILE_NOT_FOUND (also for a directory or device), FILE_TOO_LARGE above 32 MiB and for a pipe. */
  async read(path: string, sessionID: string): Promise<FileContent> {
    const target = this.#resolve(path, sessionID);
    return guarded("file.read", path, `Failed to read file '${path}'`, async () => {
      const stats = await stat(target).catch(() => undefined);
      if (!stats?.isFile() && !stats?.isFIFO()) throw notFound(`File not found: ${path}`, path, "file.read");
      const actualSize = stats.isFIFO() ? Infinity : stats.size;
      if (actualSize > MAX_ENCODED_FILE_BYTES) {
        throw sandboxError(
          "FILE_TOO_LARGE",
          `File too large. Size ${actualSize} bytes exceeds the 32 MiB limit. Use readFile() with { encoding: 'none' } for large files.`,
          { path, operation: "file.read", actualSize, maxSize: MAX_ENCODED_FILE_BYTES },
        );
      }
      const bytes = await readFile(target);
      const text = textOf(bytes);
      return text === undefined
        ? { content: bytes.toString("base64"), encoding: "base64", isBinary: true, size: bytes.length }
        : { content: text, encoding: "utf-8", isBinary: false, size: bytes.length };
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
      // Opening a pipe without a reader would block one of Node's few file threads until there is one.
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

  /** Follows symbolic links, as the container does. Errors: FILE_NOT_FOUND, IS_DIRECTORY, FILESYSTEM_ERROR. */
  async delete(path: string, sessionID: string): Promise<void> {
    const target = this.#resolve(path, sessionID);
    await guarded("file.delete", path, `Failed to delete file '${path}'`, async () => {
      const stats = await stat(target).catch(() => undefined);
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
}

const UTF8 = new TextDecoder("utf-8", { fatal: true });

/** The text without a byte order mark; undefined for what is no UTF-8 or holds NUL. */
function textOf(bytes: Buffer): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return UTF8.decode(bytes);
  } catch {
    return undefined;
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
