/** Files of one sandbox, streamed by plain HTTP: any size, and never through a model. */
import { type Camel, toCamelCase } from "./camel.ts";
import { type Connection, isFile } from "./connection.ts";
import { CallError } from "./errors.ts";
import { isDirectoryText, isFileText, tooManyEntries } from "./texts.ts";
import type { ToolInputs, ToolOutputs } from "./tool-types.ts";

export type FileEntry = ToolOutputs["list_files"]["entries"][number];

export interface Written {
  /** The absolute path. */
  path: string;
  /** The size in bytes. */
  size: number;
  /** The content's SHA-256, in hexadecimal. */
  sha256?: string;
}

export interface Edit {
  /** The exact text to replace. It must occur exactly once, or with `all`, at least once. */
  oldText: string;
  newText: string;
  all?: boolean;
}

export type FileContent = string | Uint8Array | Blob | ReadableStream<Uint8Array>;

/** The most entries of a listing, because all of them are kept in memory. */
const MAX_ENTRIES = 1_000_000;

export class Files {
  readonly #connection: Connection;
  readonly #sandbox: string;

  constructor(connection: Connection, sandbox: string) {
    this.#connection = connection;
    this.#sandbox = sandbox;
  }

  /** A file's bytes. Paths are absolute or relative to /workspace. @throws {CallError} `not_found`, `is_directory` */
  async read(path: string): Promise<Uint8Array> {
    const response = await this.#fetch(path);
    return new Uint8Array(await this.#connection.received(response.arrayBuffer()));
  }

  async readText(path: string): Promise<string> {
    const response = await this.#fetch(path);
    return this.#connection.received(response.text());
  }

  /** Writes a whole file. Missing directories are made. */
  async write(
    path: string,
    content: FileContent,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<Written> {
    const isStream = content instanceof ReadableStream;
    // Browsers cannot send streams over HTTP/1.1, and most cannot send them at all. So a stream becomes a blob; browsers keep
    // large blobs on disk.
    const body = isStream && IN_BROWSER ? await new Response(content).blob() : (content as BodyInit);
    const init = { method: "PUT", body, signal, ...(body === content && isStream && { duplex: "half" }) };
    const response = await this.#connection.http(this.#addressOf(path), init);
    return (await this.#connection.received(response.json(), signal)) as Written;
  }

  /** Replaces exact text. The edits are applied in order; if one fails, none is applied. */
  async edit(path: string, edits: readonly Edit[]): Promise<Camel<ToolOutputs["edit_file"]>> {
    const wireEdits = edits.map(({ oldText, newText, all }) => ({
      old_text: oldText,
      new_text: newText,
      all,
    }));
    const { data } = await this.#connection.call("edit_file", {
      sandbox: this.#sandbox,
      path,
      edits: wireEdits,
    });
    return toCamelCase(data);
  }

  /** All entries of a directory, with relative paths. @param options with `recursive`, subdirectories' entries too */
  async list(path = "/workspace", options: { recursive?: boolean } = {}): Promise<FileEntry[]> {
    const entries: FileEntry[] = [];
    const query = new URLSearchParams(options.recursive ? { recursive: "true" } : {});
    for (;;) {
      const response = await this.#connection.http(`${this.#addressOf(path)}?${query}`);
      if (isFile(response)) {
        await response.body?.cancel();
        throw new CallError("not_directory", ...isFileText(path));
      }
      const part = (await this.#connection.received(response.json())) as {
        entries: FileEntry[];
        next_cursor?: string;
      } | null;
      this.#connection.requireForm(Array.isArray(part?.entries));
      if (entries.length + part.entries.length > MAX_ENTRIES)
        throw new CallError("too_large", ...tooManyEntries(path, MAX_ENTRIES));
      // Not `push(...)`: the stack has no room for the arguments if a server sends more than about 120,000 entries at once.
      for (const entry of part.entries) entries.push(entry);
      // A server could send cursors without entries for ever.
      if (part.next_cursor === undefined || part.entries.length === 0) return entries;
      query.set("cursor", part.next_cursor);
    }
  }

  /** The same as `write`. Except in browsers, a stream is sent as it is read. */
  upload(path: string, content: FileContent, options: { signal?: AbortSignal } = {}): Promise<Written> {
    return this.write(path, content, options);
  }

  /** A file as a stream; with `archive`, a directory as an archive. */
  async download(
    path: string,
    { archive, signal }: { archive?: "tar.gz" | "zip"; signal?: AbortSignal } = {},
  ): Promise<ReadableStream<Uint8Array>> {
    const response = archive
      ? await this.#connection.http(`${this.#addressOf(path)}?archive=${archive}`, { signal })
      : await this.#fetch(path, signal);
    return response.body ?? new Blob([]).stream();
  }

  /** Removes a file; with `recursive`, a directory. */
  async remove(path: string, { recursive = false } = {}): Promise<void> {
    const query = recursive ? "?recursive=true" : "";
    await this.#connection.http(this.#addressOf(path) + query, { method: "DELETE" });
  }

  /** A URL for a download or upload without a token. */
  async link(
    path: string,
    options: Omit<Camel<ToolInputs["file_link"]>, "path" | "sandbox"> = {},
  ): Promise<Camel<ToolOutputs["file_link"]>> {
    const { expiresSeconds, maxBytes, direction } = options;
    const { data } = await this.#connection.call("file_link", {
      sandbox: this.#sandbox,
      path,
      direction,
      expires_seconds: expiresSeconds,
      max_bytes: maxBytes,
    });
    return toCamelCase(data);
  }

  async #fetch(path: string, signal?: AbortSignal): Promise<Response> {
    const response = await this.#connection.http(this.#addressOf(path), { signal });
    if (isFile(response)) return response;
    await response.body?.cancel();
    throw new CallError("is_directory", ...isDirectoryText(path));
  }

  #addressOf(path: string): string {
    return fileAddress(this.#sandbox, path);
  }
}

/** Pages and their workers have a location; Node, Bun and Workers have none. */
const IN_BROWSER = "location" in globalThis;

/**
 * The URL of a path. An absolute path comes after a second slash. `..` is resolved here, because in a URL it would leave the
 * route.
 */
export function fileAddress(sandbox: string, path: string): string {
  const parts: string[] = [];
  for (const part of (path.startsWith("/") ? path : `/workspace/${path}`).split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(encodeURIComponent(part));
  }
  return `/sandboxes/${encodeURIComponent(sandbox)}/files//${parts.join("/")}`;
}
