import { randomUUID } from "node:crypto";
import { createReadStream, existsSync, type Stats } from "node:fs";
import { chmod, lstat, mkdir, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { execFile } from "node:child_process";
import { basename, dirname, join, resolve } from "node:path";
import { Readable } from "node:stream";
import { promisify } from "node:util";
import { makeDirectories } from "./directories.ts";
import { errnoOf, isSandboxError, messageOf, sandboxError, validationError } from "./errors.ts";
import { listDirectory, type FileInfo, type ListOptions } from "./file-listing.ts";
import { isBinaryType, mimeType, SNIFF_BYTES } from "./mime.ts";
import { type StreamEvent } from "./sse.ts";

const run = promisify(execFile);

/** The container's limit on a `readFile` that returns a string. */
export const MAX_ENCODED_FILE_BYTES = 32 * 1024 * 1024;

/** Bytes per event of `readFileStream`: a multiple of three, so that base64 pieces need no padding. */
const CHUNK_BYTES = 65_535;

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

  /** The bytes as they are, of any size. Error: FILE_NOT_FOUND. */
  async readBytes(
    path: string,
    sessionID: string,
  ): Promise<{ content: ReadableStream<Uint8Array>; size: number; mimeType: string }> {
    const target = this.#resolve(path, sessionID);
    return guarded("file.read", path, `Failed to read file '${path}'`, async () => {
      const { size } = await this.#fileStats(target, target);
      return { content: byteStream(target), size, mimeType: mimeType(target, await head(target)) };
    });
  }

  /** The events of `readFileStream`. A failure is an event too, as in the container. */
  async *readEvents(path: string, sessionID: string): AsyncGenerator<StreamEvent> {
    try {
      const target = this.#resolve(path, sessionID);
      const { size } = await this.#fileStats(target, path);
      const type = mimeType(target, await head(target));
      const isBinary = isBinaryType(type);
      yield { type: "metadata", mimeType: type, size, isBinary, encoding: isBinary ? "base64" : "utf-8" };
      const decoder = new TextDecoder();
      let bytesRead = 0;
      for await (const chunk of createReadStream(target, { highWaterMark: CHUNK_BYTES })) {
        const bytes: Buffer = chunk;
        bytesRead += bytes.length;
        const data = isBinary ? bytes.toString("base64") : decoder.decode(bytes, { stream: true });
        yield { type: "chunk", data };
      }
      const rest = isBinary ? "" : decoder.decode();
      if (rest !== "") yield { type: "chunk", data: rest };
      yield { type: "complete", bytesRead };
    } catch (error) {
      yield { type: "error", error: messageOf(error) };
    }
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

  /** Writes beside the file and puts it in place when complete; keeps the mode. Returns the bytes written. */
  async writeStream(path: string, content: ReadableStream<Uint8Array>, sessionID: string): Promise<number> {
    const target = this.#resolve(path, sessionID);
    return guarded("file.write", path, `Failed to write file '${path}'`, async () => {
      makeDirectories(dirname(target));
      const mode = await stat(target).then(
        (stats) => stats.mode,
        () => undefined,
      );
      const temporary = `${target}.tmp.${randomUUID()}`;
      let written = 0;
      try {
        const file = await open(temporary, "wx");
        try {
          for await (const chunk of content) {
            await file.writeFile(chunk);
            written += chunk.byteLength;
          }
        } finally {
          await file.close();
        }
        if (mode !== undefined) await chmod(temporary, mode);
        await rename(temporary, target);
      } catch (error) {
        await rm(temporary, { force: true });
        throw error;
      }
      return written;
    });
  }

  /** Errors: FILE_NOT_FOUND, IS_DIRECTORY, FILESYSTEM_ERROR. */
  async delete(path: string, sessionID: string): Promise<void> {
    const target = this.#resolve(path, sessionID);
    await guarded("file.delete", path, `Failed to delete file '${path}'`, async () => {
      const stats = await lstat(target).catch(() => undefined);
      if (!stats) throw notFound(`File not found: ${path}`, path, "file.delete");
      if (stats.isDirectory() || (await isDirectory(target))) {
        throw sandboxError(
          "IS_DIRECTORY",
          `Cannot delete directory with deleteFile() at '${path}'. Use exec('rm -rf <path>') instead.`,
          { path, operation: "file.delete" },
        );
      }
      await rm(target);
    });
  }

  /** Moves like `mv`: onto a file, into a directory, across file systems. Errors: FILE_NOT_FOUND, FILESYSTEM_ERROR. */
  async move(
    from: string,
    to: string,
    sessionID: string,
    operation: "file.rename" | "file.move",
  ): Promise<void> {
    const source = this.#resolve(from, sessionID);
    const named = this.#resolve(to, sessionID);
    const failure = `Failed to ${operation === "file.move" ? "move" : "rename"} file from '${from}' to '${to}'`;
    await guarded(operation, from, failure, async () => {
      if (!existsSync(source)) throw notFound(`Source file not found: ${from}`, from, operation);
      const target = (await isDirectory(named)) ? join(named, basename(source)) : named;
      try {
        await rename(source, target);
      } catch (error) {
        if (errnoOf(error) !== "EXDEV") throw error;
        await run("mv", ["--", source, target]);
      }
    });
  }

  /** Error: FILESYSTEM_ERROR, also when it exists and `recursive` is not set. */
  async makeDirectory(path: string, sessionID: string, recursive: boolean): Promise<void> {
    const target = this.#resolve(path, sessionID);
    await guarded("directory.create", path, `Failed to create directory '${path}'`, async () => {
      if (recursive) makeDirectories(target);
      else await mkdir(target);
    });
  }

  /** Errors: FILE_NOT_FOUND, NOT_DIRECTORY. */
  async list(path: string, sessionID: string, options: ListOptions): Promise<FileInfo[]> {
    const target = this.#resolve(path, sessionID);
    return guarded("directory.list", path, `Failed to list files in '${path}'`, async () => {
      const stats = await stat(target).catch(() => undefined);
      if (!stats) throw notFound(`Directory not found: ${path}`, path, "directory.list");
      if (!stats.isDirectory()) {
        throw sandboxError("NOT_DIRECTORY", `Path is not a directory: ${path}`, {
          path,
          operation: "directory.list",
        });
      }
      return listDirectory(target, path, options);
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

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
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

async function head(path: string): Promise<Uint8Array> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(SNIFF_BYTES), 0, SNIFF_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

function byteStream(path: string): ReadableStream<Uint8Array> {
  const chunks = Readable.from(createReadStream(path, { highWaterMark: CHUNK_BYTES }))[
    Symbol.asyncIterator
  ]();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await chunks.return?.();
    },
  });
}
