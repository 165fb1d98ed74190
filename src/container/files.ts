/** Files of a sandbox, by the helpers in `container/files.sh`. */
import {
  type ErrorCode,
  ToolError,
  answered,
  exhausted,
  isGone,
  isNoAnswer,
  saysExhausted,
} from "../shared/errors.ts";
import { answerOf } from "./answer.ts";
import { type Reply, type Shell, countOf, outputBytes, quote, replyBytes } from "./shell.ts";
import { clause, textOf } from "../shared/text.ts";

/** What of the SDK's class this needs. */
export interface FileHost {
  writeFile(path: string, content: string, options: { encoding: string }): Promise<unknown>;
  deleteFile(path: string): Promise<unknown>;
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
  /** Lines of the whole file, a last one without a line break included; only when lines were asked for. */
  lines?: number;
  bytes: Uint8Array;
}

const WORKSPACE = "/workspace";

/** Content up to this size travels in the command that writes it; above, through a file of the SDK's. */
const INLINE_BYTES = 48 * 1024;

/** How long a write through such a file may take: this many milliseconds, and more for what is large. */
const ANSWER_MS = 60_000;
const BYTES_PER_MS = 100;

export class Files {
  readonly #shell: Shell;
  readonly #host: FileHost;

  constructor(shell: Shell, host: FileHost) {
    this.#shell = shell;
    this.#host = host;
  }

  /**
   * Writes or appends, atomically. Answers the file's size afterwards, in bytes.
   * @param confined whether only what lies below /workspace and /tmp may be written, wherever symbolic links lead
   */
  async write(path: string, content: Uint8Array, append: boolean, confined: boolean): Promise<number> {
    const target = absolute(path);
    const id = crypto.randomUUID();
    const line = `sbx_put ${quote(target)} ${append ? "append" : "write"} ${id}`;
    let reply: Reply;
    try {
      reply =
        content.length <= INLINE_BYTES
          ? await this.#putInline(line, content, confined)
          : await this.#putStaged(`${line} raw${confined ? " confined" : ""}`, content.toBase64(), id);
    } catch (error) {
      // Whatever was killed must not leave its part of the content beside the file.
      if (!isGone(error) && !isNoAnswer(error))
        await this.#shell
          .call("files.sh", `sbx_drop ${quote(target)} ${id}`, { silent: true })
          .catch(() => undefined);
      throw error;
    }
    const [word, size] = reply.words;
    if (word === "written") return append ? sizeOf(size) : content.length;
    if (word === "directory") throw isDirectory(target);
    if (word === "special") throw isSpecial(target);
    if (word === "outside") throw isOutside(target, reply.words.slice(1).join(" "));
    throw refusal(`Writing ${target} failed`, reply);
  }

  #putInline(line: string, content: Uint8Array, confined: boolean): Promise<Reply> {
    const text = textOf(content);
    const [form, input] = text === undefined ? ["base64", content.toBase64()] : ["text", text];
    return this.#shell.call("files.sh", `${line} ${form}${confined ? " confined" : ""}`, { input });
  }

  async #putStaged(line: string, encoded: string, id: string): Promise<Reply> {
    const staged = `/var/lib/sandbox-mcp/staged-${id}`;
    const answerMs = ANSWER_MS + encoded.length / BYTES_PER_MS;
    let hangs = false;
    try {
      const written = this.#host.writeFile(staged, encoded, { encoding: "base64" });
      // Whether it was written, the call that reads it says.
      await answered(
        answerMs,
        answerOf(written, () => true),
      );
      return await this.#shell.call("files.sh", `${line} <${staged}`, { answerMs });
    } catch (error) {
      hangs = isNoAnswer(error);
      throw error;
    } finally {
      const deleted = this.#host.deleteFile(staged).catch(() => undefined);
      if (!hangs) await answered(ANSWER_MS, deleted);
    }
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
    const line = `sbx_get ${quote(target)} ${unit} ${offset} ${limit} ${maxBytes}`;
    let reply = await this.#shell.call("files.sh", `${line} text`);
    if (reply.words[0] === "text") {
      const whole = outputBytes(reply.rest);
      if (whole) return rangeOf(whole, unit, offset, limit);
      reply = await this.#shell.call("files.sh", line);
    }
    const [word, size, lines] = reply.words;
    switch (word) {
      case "whole":
        return rangeOf(replyBytes(reply), unit, offset, limit);
      case "file":
        return {
          size: sizeOf(size),
          lines: lines === undefined ? undefined : sizeOf(lines),
          bytes: replyBytes(reply),
        };
      case "missing":
        throw missing(target, `Use list_files with path ${parent(target)}.`);
      case "directory":
        throw isDirectory(target);
      case "special":
        throw isSpecial(target);
      default:
        throw refusal(`Reading ${target} failed`, reply);
    }
  }

  /** At most `limit` entries, ordered by path. */
  async list(path: string, recursive: boolean, limit: number): Promise<FileEntry[]> {
    const target = absolute(path);
    const line = `sbx_list ${quote(target)} ${recursive ? 1000 : 1} ${limit}`;
    const reply = await this.#shell.call("files.sh", line);
    switch (reply.words[0]) {
      case "directory":
        return entries(replyBytes(reply)).slice(0, limit);
      case "missing":
        throw missing(target, `Use list_files with path ${parent(target)}.`);
      case "file":
        throw new ToolError(
          "not_directory",
          `${target} is a file, not a directory.`,
          `Use read_file with path ${target}.`,
        );
      default:
        throw refusal(`Listing ${target} failed`, reply);
    }
  }
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

/** A range of a file that is here as a whole. */
function rangeOf(whole: Uint8Array, unit: "lines" | "bytes", offset: number, limit: number): FileRange {
  const size = whole.length;
  if (unit === "bytes") return { size, bytes: whole.subarray(offset, offset + limit) };
  // Where each line starts; the end counts as one more start when it ends a line.
  const starts = [0];
  for (let at = whole.indexOf(LINE_FEED); at >= 0; at = whole.indexOf(LINE_FEED, at + 1)) starts.push(at + 1);
  const lines = starts.at(-1) === size ? starts.length - 1 : starts.length;
  const from = starts[offset - 1] ?? size;
  return { size, lines, bytes: whole.subarray(from, starts[offset - 1 + limit] ?? size) };
}

const LINE_FEED = 10;

function missing(path: string, hint: string): ToolError {
  return new ToolError("not_found", `There is no ${path} in this sandbox.`, hint);
}

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

type Reason = readonly [pattern: RegExp, code: ErrorCode, hint: string];

const REASONS: readonly Reason[] = [
  [
    /No space left|quota/i,
    "no_space",
    "Delete files you no longer need, then write again: nothing was changed.",
  ],
  [/Permission denied|Operation not permitted/i, "permission_denied", "Use a path under /workspace."],
  [
    /Read-only/i,
    "permission_denied",
    "This directory is mounted read-only: write to another, such as /workspace or /tmp.",
  ],
  [
    /Not a directory|File exists/i,
    "not_directory",
    "A part of the path is a file: use list_files to see which.",
  ],
  [/name too long/i, "invalid_argument", "Use a shorter name: 255 bytes at most for each part."],
];

/** The name under which the helpers write a file before it takes its own. */
const TEMPORARY = /\/\.sandbox-mcp\.[\w.-]+/g;

const UNFORESEEN: Reason = [/^/, "file_system", ""];

/** The failure behind an answer of the helpers, whose sentence is the system's own. */
function refusal(what: string, reply: Reply): ToolError {
  const said = (reply.words.slice(1).join(" ") || reply.stderr.trim()).replaceAll(TEMPORARY, "");
  if (saysExhausted(said)) return exhausted();
  const [, code, hint] = REASONS.find(([pattern]) => pattern.test(said)) ?? UNFORESEEN;
  return new ToolError(code, `${what}: ${clause(said) || "the sandbox gave no reason"}.`, hint);
}

const TYPES: Record<string, FileEntry["type"]> = { f: "file", d: "directory", l: "symlink" };

function entries(listing: Uint8Array): FileEntry[] {
  return new TextDecoder()
    .decode(listing)
    .split("\0")
    .filter(Boolean)
    .map((line) => {
      const [type = "", size, seconds, , ...name] = line.split(" ");
      return {
        path: name.join(" "),
        type: TYPES[type] ?? "other",
        size: sizeOf(size),
        modified: timeOf(seconds),
      };
    });
}

function sizeOf(word: string | undefined): number {
  return countOf(word) ?? 0;
}

/** A time as `find` gives it, seconds since the epoch with a fraction; the epoch for what is no time. */
function timeOf(seconds: string | undefined): string {
  const time = new Date(Math.floor(Number(seconds)) * 1000);
  return (Number.isNaN(time.getTime()) ? new Date(0) : time).toISOString();
}
