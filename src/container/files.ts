/**
 * Files of a sandbox and what tasks leave there, by requests to sandboxd. A user's program may answer in its place: answers
 * are checked and bounded.
 */
import type * as z from "zod/mini";
import {
  ANSWER_BYTES,
  type Edit,
  type FileCalls,
  type FileFailure,
  type FileStat,
  type FoundChanges,
  IMAGE_HEADER,
  type ImageMade,
  LINES_HEADER,
  MODIFIED_HEADER,
  SHOWN_IMAGE,
  SIZE_HEADER,
  type Written,
  changesSchema,
  imageMade,
  listCursor,
  listSchema,
  removedSchema,
  statSchema,
  usageSchema,
  writtenSchema,
} from "../../container/sandboxd/protocol.ts";
import { type ErrorCode, ToolError, answered, ending, exhausted } from "../shared/errors.ts";
import { shownName } from "../shared/shown.ts";
import type { Connection } from "./connection.ts";
import { readAnswer, bytesOf, jsonOf, misanswered } from "./sandboxd-answer.ts";

/** A cursor that a caller has given. @throws {ToolError} for what no answer said */
export function checkedCursor(given: string | undefined): string | undefined {
  if (given === undefined || listCursor().safeParse(given).success) return given;
  throw new ToolError("invalid_argument", "The cursor is none that an answer before said.", "Leave it out.");
}

/** A part of a listing. `next` is the cursor for the entries after it, where there are more. */
export interface FileListing {
  entries: FileEntry[];
  next?: string | undefined;
}

export interface FileEntry {
  path: string;
  type: "file" | "directory" | "symlink" | "other";
  /** Bytes. */
  size: number;
  /** ISO 8601. */
  modified: string;
}

/** A range of a file. */
export interface FileRange {
  /** Size of the whole file in bytes. */
  size: number;
  /** Lines of the whole file, including a last one without a line break; only when lines were asked for. */
  lines?: number;
  bytes: Uint8Array;
}

/** How a directory is packed. */
export type ArchiveFormat = FileCalls["GET /archive"]["format"];

/** A range of a file that is being read. */
export interface OpenedFile {
  body: ReadableStream<Uint8Array>;
  /** Of the whole file, as it was when it was opened: bytes, and milliseconds since the epoch. */
  size: number;
  modified: number;
}

interface AskOptions {
  body?: Uint8Array;
  /** How long the answer may take, milliseconds. */
  ms?: number;
  /** Bytes of the answer at most. */
  most?: number;
}

const WORKSPACE = "/workspace";

/** How long an answer may take, milliseconds: common clients give up after 60 s. A large body has more time. */
const ANSWER_MS = 40_000;
const BYTES_PER_MS = 100;

/** How long making an image smaller may take, milliseconds: others may be before it, and each has 20 s. */
const IMAGE_MS = 30_000;

/** How long looking through what a task has left may take, and how long packing it, milliseconds each: a workspace can be large. */
const TASK_MS = 600_000;

export class Files {
  readonly #connection: Pick<Connection, "fetch">;

  constructor(connection: Pick<Connection, "fetch">) {
    this.#connection = connection;
  }

  /**
   * Writes or appends, atomically and once. Answers the file's size afterwards, in bytes.
   * @param confined whether only what lies below /workspace and /tmp may be written, wherever symbolic links lead
   */
  async write(path: string, content: Uint8Array, append: boolean, confined: boolean): Promise<number> {
    const target = absolute(path);
    const call = {
      path: target,
      id: crypto.randomUUID(),
      append: flag(append),
      confined: flag(confined),
    };
    const failed = `Writing ${target} failed`;
    const { size } = await this.#ask("PUT /files", call, writtenSchema, failed, { body: content });
    return size;
  }

  /**
   * Replaces parts of a text file, all of them or none, atomically and once.
   * @param confined as for `write`
   * @param mayRead whether the caller may be told what the file holds: the diff, and the line nearest to a missing text
   */
  async edit(path: string, edits: readonly Edit[], confined: boolean, mayRead: boolean): Promise<Written> {
    const target = absolute(path);
    const call = { path: target, id: crypto.randomUUID(), confined: flag(confined) };
    const body = new TextEncoder().encode(JSON.stringify(edits));
    const failed = `Editing ${target} failed`;
    const written = this.#ask("POST /edit", call, writtenSchema, failed, { body });
    if (mayRead) return await written;
    const { size, replaced } = await written.catch((error: unknown) => {
      if (!(error instanceof ToolError) || error.code !== "invalid_argument") throw error;
      throw new ToolError(
        "invalid_argument",
        `${failed}, nothing was written: an old_text is not there, or is there more than once.`,
        "A token with sandbox:read is told where.",
      );
    });
    return { size, replaced };
  }

  /** Lines count from 1, bytes from 0; the range is cut at `maxBytes`. */
  async read(
    path: string,
    unit: "lines" | "bytes",
    offset: number,
    limit: number,
    maxBytes: number,
  ): Promise<FileRange> {
    const target = absolute(path);
    const failed = `Reading ${target} failed`;
    const rangeOf = async (response: Response) => ({
      size: countOf(response, SIZE_HEADER),
      lines: unit === "lines" ? countOf(response, LINES_HEADER) : undefined,
      bytes: await bytesOf(response, maxBytes),
    });
    return await this.#answer(ANSWER_MS, (signal) =>
      unit === "lines"
        ? this.#send(
            "GET /lines",
            { path: target, offset, limit, max: maxBytes },
            failed,
            { signal },
            rangeOf,
          )
        : this.#send(
            "GET /files",
            { path: target, offset, limit: Math.min(limit, maxBytes) },
            failed,
            { signal },
            rangeOf,
          ),
    );
  }

  /** At most `limit` entries, ordered by path. @param after the cursor of the answer before */
  async list(path: string, recursive: boolean, limit: number, after?: string): Promise<FileListing> {
    const target = absolute(path);
    const call = { path: target, depth: recursive ? MAX_DEPTH : 1, limit, after };
    const failed = `Listing ${target} failed`;
    const { entries, next } = await this.#ask("GET /list", call, listSchema, failed, { most: ANSWER_BYTES });
    const listed = entries.slice(0, limit).map(({ path: name, type, size, modified }) => {
      return { path: name, type, size, modified: new Date(modified).toISOString() };
    });
    return { entries: listed, next };
  }

  /** What a path leads to; with `digest` also the SHA-256 of a file, unless that takes too long. */
  async stat(path: string, digest = false): Promise<FileStat> {
    const target = absolute(path);
    const call = { path: target, digest: flag(digest) };
    return await this.#ask("GET /stat", call, statSchema, `Reading ${target} failed`);
  }

  /** Removes a file, or with `recursive` a directory. @param confined as for `write` */
  async remove(path: string, recursive: boolean, confined: boolean): Promise<void> {
    const target = absolute(path);
    if (target === "/" || target === WORKSPACE)
      throw new ToolError(
        "invalid_argument",
        `${target} itself is not removed; nothing was.`,
        "Remove what is in it, or use destroy_sandbox.",
      );
    const call = { path: target, recursive: flag(recursive), confined: flag(confined) };
    await this.#ask("DELETE /files", call, removedSchema, `Removing ${target} failed`);
  }

  /** A range of a file as a stream, which fails where the file turns out to be shorter; and the file as it is then. */
  async open(path: string, offset: number, length: number): Promise<OpenedFile> {
    const target = absolute(path);
    const call = { path: target, offset, limit: length };
    const failed = `Reading ${target} failed`;
    return await this.#stream("GET /files", call, failed, async (body, response) => {
      const size = countOf(response, SIZE_HEADER);
      if (size < offset + length && size > 0) {
        await body.cancel();
        throw new ToolError("file_system", `${failed}: it became shorter meanwhile.`, "Ask again.");
      }
      if (response.headers.get("content-length") !== String(length)) {
        await body.cancel();
        throw misanswered();
      }
      return { body, size, modified: timeOf(response) };
    });
  }

  /** A directory as an archive, as a stream. */
  async archive(path: string, format: ArchiveFormat): Promise<ReadableStream<Uint8Array>> {
    const target = absolute(path);
    const failed = `Packing ${target} failed`;
    return await this.#stream("GET /archive", { path: target, format }, failed, async (body) => body);
  }

  /**
   * Writes a stream to a file, atomically: one that breaks off leaves what was there. Answers size and SHA-256.
   * @param end the stream's length in bytes; where that is not known, the bytes behind its end in hexadecimal; of a form,
   * whose file is written, the content type
   */
  async store(
    path: string,
    body: ReadableStream,
    end: { length?: number; mark?: string; form?: string },
    maxBytes: number,
    confined: boolean,
  ): Promise<Written> {
    const target = absolute(path);
    const call = {
      path: target,
      id: crypto.randomUUID(),
      confined: flag(confined),
      max: maxBytes,
      digest: flag(true),
      ...end,
    };
    const { signal } = new AbortController();
    return await this.#send("PUT /files", call, `Writing ${target} failed`, { signal, body }, (response) =>
      jsonOf(response, writtenSchema),
    );
  }

  /** The body of an answer. There is no time limit once it has begun. */
  async #stream<Name extends "GET /files" | "GET /archive", T>(
    name: Name,
    call: FileCalls[Name],
    failed: string,
    take: (body: ReadableStream<Uint8Array>, response: Response) => Promise<T>,
  ): Promise<T> {
    return await this.#answer(ANSWER_MS, (signal) =>
      this.#send(name, call, failed, { signal }, async (response) => {
        if (response.body === null) throw misanswered();
        return await take(response.body, response);
      }),
    );
  }

  /** Bytes of the files below a directory; undefined when counting takes too long. */
  async usage(path: string): Promise<number | undefined> {
    return (await this.#ask("GET /usage", { path }, usageSchema, `Measuring ${path} failed`)).bytes;
  }

  /** What a task changed in its directory; undefined where that cannot be found out. At most `limit` files. */
  async changes(task: string, directory: string, limit: number): Promise<FoundChanges | undefined> {
    const path = absolute(directory);
    const failed = `Looking for changes in ${path} failed`;
    const { changes } = await this.#ask("POST /changes", { path, task, limit }, changesSchema, failed, {
      ms: TASK_MS,
      most: ANSWER_BYTES,
    });
    return changes && { ...changes, files: changes.files.slice(0, limit) };
  }

  /** Makes an image smaller in the sandbox. Answers bytes, which may be anything, or why there are none. */
  async makeSmaller(image: Uint8Array): Promise<Uint8Array | Exclude<ImageMade, "made">> {
    return await this.#answer(IMAGE_MS, (signal) =>
      this.#send(
        "POST /image",
        {},
        "Making an image smaller failed",
        { signal, body: image },
        async (response) => {
          const { data: made } = imageMade().safeParse(response.headers.get(IMAGE_HEADER));
          const bytes = await bytesOf(response, SHOWN_IMAGE.max);
          if (made === undefined) throw misanswered();
          return made === "made" ? bytes : made;
        },
      ),
    );
  }

  #ask<Name extends keyof FileCalls, Schema extends z.ZodMiniType>(
    name: Name,
    call: FileCalls[Name],
    schema: Schema,
    failed: string,
    { body, ms = ANSWER_MS + (body?.length ?? 0) / BYTES_PER_MS, most }: AskOptions = {},
  ): Promise<z.infer<Schema>> {
    return this.#answer(ms, async (signal) =>
      this.#send(name, call, failed, { signal, body }, (response) => jsonOf(response, schema, most)),
    );
  }

  /** @throws {ToolError} with what `failed`, and why */
  async #send<Name extends keyof FileCalls, T>(
    name: Name,
    call: FileCalls[Name],
    failed: string,
    { signal, body }: { signal: AbortSignal; body?: Uint8Array | ReadableStream },
    read: (response: Response) => Promise<T>,
  ): Promise<T> {
    const [method = "", pathname] = name.split(" ");
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(call)) if (value !== undefined) query.set(key, String(value));
    return await this.#connection.fetch(`${pathname}?${query}`, { method, body }, signal, (response) =>
      readAnswer(response, read, (failure) => refusal(failed, "path" in call ? call.path : "", failure)),
    );
  }

  /** @throws {ToolError} `no_answer` when the work takes longer than so many milliseconds */
  async #answer<T>(ms: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const abort = new AbortController();
    try {
      return await answered(ms, work(abort.signal));
    } catch (error) {
      abort.abort();
      throw error;
    }
  }
}

function flag(isSet: boolean): "1" | undefined {
  return isSet ? "1" : undefined;
}

/** The greatest depth of a listing, in directories. */
const MAX_DEPTH = 1000;

/** More bytes or lines than any sandbox has. */
const MAX_COUNT = 2 ** 50;

function countOf({ headers }: Response, name: string): number {
  const word = headers.get(name) ?? "";
  if (!/^\d{1,16}$/.test(word) || Number(word) > MAX_COUNT) throw misanswered();
  return Number(word);
}

/** Milliseconds since the epoch, before which files can have been changed too. */
function timeOf({ headers }: Response): number {
  const word = headers.get(MODIFIED_HEADER) ?? "";
  if (!/^-?\d{1,16}$/.test(word)) throw misanswered();
  return Number(word);
}

/** `path` as an absolute one: relative to /workspace, with `.` and `..` resolved. */
export function absolute(path: string): string {
  const parts: string[] = [];
  for (const part of (path.startsWith("/") ? path : `${WORKSPACE}/${path}`).split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

function parent(path: string): string {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

function missing(path: string, hint: string): ToolError {
  return new ToolError("not_found", `There is no ${shownName(path)} in this sandbox.`, hint);
}

/** What there is in place of a missing path. */
function nearWords(path: string, { directory = parent(path), elsewhere }: FileFailure): string {
  if (elsewhere !== undefined)
    return `It is ${shownName(elsewhere)}: a path is relative to /workspace, and not to the directory of a session.`;
  const use = `Use list_files with path ${shownName(directory)}`;
  return directory === parent(path) ? `${use}.` : `${use}, the nearest directory that is there.`;
}

/** What to do about names in which bytes are shown as U+FFFD. */
export const NOT_UTF8 =
  "A name with \uFFFD is not UTF-8: no path reaches it. Rename it with run_command, by a pattern such as mv caf*.txt cafe.txt; an archive of its directory (file_link) holds it as it is.";

function isDirectory(path: string): ToolError {
  return new ToolError("is_directory", `${path} is a directory.`, `Use list_files with path ${path}.`);
}

function isSpecial(path: string): ToolError {
  return new ToolError(
    "invalid_argument",
    `${path} is a device, socket or pipe, not a file.`,
    "Use run_command.",
  );
}

function isOutside(path: string, leadsTo: string): ToolError {
  const where = leadsTo === path || leadsTo === "" ? path : `${path}, which leads to ${leadsTo},`;
  return new ToolError(
    "permission_denied",
    `Writing ${where} needs the scope sandbox:exec, which your token lacks: what others run may lie there. Nothing was written.`,
    "Use a path under /workspace or /tmp.",
  );
}

const MAKE_SPACE = "Delete files you no longer need, then write again: nothing was changed.";
const FILE_IN_PATH = "A part of the path is a file: use list_files to see which.";

/** For each system error code: what it means, and what to do. */
const REASONS: Record<string, readonly [words: string, code: ErrorCode, hint: string] | undefined> = {
  ENOSPC: ["No space left on device", "no_space", MAKE_SPACE],
  EDQUOT: ["Disk quota exceeded", "no_space", MAKE_SPACE],
  EACCES: ["Permission denied", "permission_denied", "Use a path under /workspace."],
  EPERM: ["Operation not permitted", "permission_denied", "Use a path under /workspace."],
  EROFS: [
    "Read-only file system",
    "permission_denied",
    "This directory is mounted read-only: write to another, such as /workspace or /tmp.",
  ],
  ENOTDIR: ["Not a directory", "not_directory", FILE_IN_PATH],
  EEXIST: ["File exists", "not_directory", FILE_IN_PATH],
  ENAMETOOLONG: [
    "File name too long",
    "invalid_argument",
    "Use a shorter name: 255 bytes at most for each part.",
  ],
  ELOOP: [
    "Too many levels of symbolic links",
    "invalid_argument",
    "Links on the path lead to each other: use list_files to see which.",
  ],
  ENOENT: ["No such file or directory", "file_system", ""],
  EBUSY: ["Device or resource busy", "file_system", ""],
  EIO: ["Input/output error", "file_system", ""],
};

/** The error codes for a lack of memory, processes or open files. */
const EXHAUSTED = new Set(["EAGAIN", "ENOMEM", "EMFILE", "ENFILE"]);

function refusal(failed: string, path: string, failure: FileFailure): ToolError {
  const { problem, code = "", path: leadsTo = "", edit = 0, count = 0, lines = [], nearest = "" } = failure;
  switch (problem) {
    case "missing":
      return missing(path, path.includes("\uFFFD") ? NOT_UTF8 : nearWords(path, failure));
    case "directory":
      return isDirectory(path);
    case "not_directory":
      return new ToolError(
        "not_directory",
        `${path} is a file, not a directory.`,
        `Use read_file with path ${path}.`,
      );
    case "special":
      return isSpecial(path);
    case "outside":
      return isOutside(path, leadsTo);
    case "too_large":
      return new ToolError("too_large", `${failed}: it is too large.`, "Use run_command for it.");
    case "cut":
      return new ToolError(
        "connection_lost",
        `${failed}: it broke off. Nothing was written.`,
        "Send it again.",
      );
    case "form":
      return new ToolError(
        "invalid_argument",
        `${failed}: the form does not hold one file. Nothing was written.`,
        "Send one file, or its bytes by PUT.",
      );
    case "ending":
      return ending(`${failed}: nothing was changed`);
    case "not_text":
      return new ToolError("invalid_argument", `${failed}: it is not UTF-8 text.`, "Use run_command.");
    case "line_breaks":
      return new ToolError(
        "invalid_argument",
        `${failed}, nothing was written: the old_text of edit ${edit} is there with other line breaks.`,
        `Its lines end with ${code === "CRLF" ? "\\r\\n" : "\\n"}: write old_text and new_text so.`,
      );
    case "absent":
      return new ToolError(
        "invalid_argument",
        `${failed}, nothing was written: the old_text of edit ${edit} is not there. Nearest is line ${lines[0]}: ${JSON.stringify(nearest)}.`,
        `Call read_file with path ${path} and offset ${Math.max(1, (lines[0] ?? 1) - 5)}, and copy the text exactly.`,
      );
    case "repeated":
      return new ToolError(
        "invalid_argument",
        `${failed}, nothing was written: the old_text of edit ${edit} is there ${count} times, on lines ${lines.join(", ")}${count > lines.length ? " and more" : ""}.`,
        "Give more of the text around the one you mean, or set all to replace each.",
      );
    case "system": {
      if (EXHAUSTED.has(code)) return exhausted();
      const [words, kind, hint] = REASONS[code] ?? [`the system says ${code}`, "file_system", ""];
      return new ToolError(kind, `${failed}: ${words}.`, hint);
    }
  }
}
