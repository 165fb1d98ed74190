/** Files of a sandbox, by the tools: their bytes, a new content for them, and links to send and fetch them by. */
import { callTool, ToolFailed, Unreachable } from "./tools.ts";

export interface Entry {
  /** Relative to the directory that was listed. */
  path: string;
  type: "file" | "directory" | "symlink" | "other";
  size: number;
  /** ISO 8601. */
  modified: string;
}

export interface Entries {
  entries: Entry[];
  /** Whether there are more than are here. */
  more: boolean;
}

/** The most entries that one call lists, and that the page takes of a directory. */
const PAGE_ENTRIES = 5000;
const MAX_ENTRIES = 50_000;

/** The largest file that is shown whole, bytes. */
export const MAX_BYTES = 256 * 1024;

export async function list(sandbox: string, path: string, signal: AbortSignal): Promise<Entries> {
  const entries: Entry[] = [];
  let cursor: string | undefined;
  for (;;) {
    const call = { sandbox, path, limit: PAGE_ENTRIES, cursor };
    const { data } = await callTool<Entries & { next_cursor?: string }>("list_files", call, signal);
    entries.push(...data.entries);
    cursor = data.next_cursor;
    if (cursor === undefined || entries.length >= MAX_ENTRIES) return { entries, more: data.more };
  }
}

/** The bytes of a file in base64, as the tool gives them: a few at a time. */
export interface Content {
  bytes: Uint8Array<ArrayBuffer>;
  /** Whether the file has more. */
  isCut: boolean;
}

/** What `read_file` answers with encoding base64. */
interface FileRange {
  /** Of the whole file, bytes. */
  size: number;
  /** In base64. */
  content: string;
}

/** @throws {ToolFailed} also for a file that does not exist, with the code `not_found` */
export async function read(sandbox: string, path: string, signal?: AbortSignal): Promise<Content> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  let whole: number | undefined;
  for (;;) {
    const args = { sandbox, path, encoding: "base64", offset: length };
    const { size, content } = (await callTool<FileRange>("read_file", args, signal)).data;
    if (size !== (whole ??= size)) throw new ToolFailed("The file changed while it was read. Open it again.");
    const part = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    parts.push(part);
    length += part.length;
    const isDone = length >= size || part.length === 0;
    if (isDone || length >= MAX_BYTES)
      return { bytes: new Uint8Array(await new Blob(parts).arrayBuffer()), isCut: !isDone };
  }
}

/** @throws {ToolFailed} */
export async function write(sandbox: string, path: string, content: string): Promise<void> {
  await callTool("write_file", { sandbox, path, content });
}

/** An address to fetch a file from, or a directory as an archive; it is good for a few minutes. */
export async function downloadURL(sandbox: string, path: string): Promise<string> {
  return link({ sandbox, path, direction: "download", expires_seconds: 300 });
}

/** Sends a file. @param progress is called with how much of it has gone, from 0 to 1 */
export async function upload(
  sandbox: string,
  path: string,
  file: File,
  progress: (part: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const url = await link({ sandbox, path, direction: "upload", expires_seconds: 86_400 });
  // The server may be known by several names, and the page may ask only that by which it was opened.
  const address = new URL(url).pathname;
  await new Promise<void>((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("PUT", address);
    const lost = new Unreachable(`The connection broke: ${file.name} was not written.`);
    request.upload.addEventListener("progress", ({ loaded, total }) => progress(total ? loaded / total : 1));
    request.addEventListener("error", () => failed(lost));
    request.addEventListener("abort", () => failed(new ToolFailed(`Stopped: ${file.name} was not written.`)));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.addEventListener("load", () =>
      request.status < 300 ? done() : failed(new ToolFailed(`${file.name}: ${errorIn(request)}`)),
    );
    request.send(file);
  });
}

async function link(args: Record<string, unknown>): Promise<string> {
  const { data } = await callTool<{ url: string }>("file_link", args);
  return data.url;
}

function errorIn({ responseText, status }: XMLHttpRequest): string {
  try {
    const { error, hint } = JSON.parse(responseText) as { error: string; hint?: string };
    return [error, hint].filter(Boolean).join(" ");
  } catch {
    return `the server answered ${status}.`;
  }
}
