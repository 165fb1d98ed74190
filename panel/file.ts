/** A sandbox's files through the tools: reading, writing, and links for transfers. */
import type { ToolOutputs } from "../client/tool-types.ts";
import { callTool, ToolFailed, Unreachable } from "./tools.ts";
import { FILE_CHANGED, statusText, uploadBroke, uploadStopped } from "./texts.ts";

type Page = ToolOutputs["list_files"];
export type Entry = Page["entries"][number];
export type Entries = Pick<Page, "entries" | "more">;

/** The most entries listed per call, and shown per directory. */
const PAGE_ENTRIES = 5000;
const MAX_ENTRIES = 50_000;

/** The largest file shown completely, in bytes. */
export const MAX_BYTES = 256 * 1024;

export async function list(sandbox: string, path: string, signal: AbortSignal): Promise<Entries> {
  const entries: Entry[] = [];
  let cursor: string | undefined;
  for (;;) {
    const call = { sandbox, path, limit: PAGE_ENTRIES, cursor };
    const { data } = await callTool<Page>("list_files", call, signal);
    entries.push(...data.entries);
    cursor = data.next_cursor;
    const isLast = cursor === undefined || data.entries.length === 0;
    if (isLast || entries.length >= MAX_ENTRIES) return { entries, more: data.more };
  }
}

/** @throws {ToolFailed} also for a missing file, with code `not_found` */
export async function read(sandbox: string, path: string, signal?: AbortSignal) {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  let fileSize: number | undefined;
  for (;;) {
    const args = { sandbox, path, encoding: "base64", offset: length };
    const { size, content } = (await callTool<ToolOutputs["read_file"]>("read_file", args, signal)).data;
    if (size !== (fileSize ??= size)) throw new ToolFailed(FILE_CHANGED);
    const part = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    parts.push(part);
    length += part.length;
    const isDone = length >= size || part.length === 0;
    if (isDone || length >= MAX_BYTES)
      return { bytes: new Uint8Array(await new Blob(parts).arrayBuffer()), isCut: !isDone };
  }
}

export async function write(sandbox: string, path: string, content: string): Promise<void> {
  await callTool("write_file", { sandbox, path, content });
}

/** A download link for a file, or a directory as an archive; valid for a few minutes. */
export async function downloadURL(sandbox: string, path: string): Promise<string> {
  return link({ sandbox, path, direction: "download", expires_seconds: 300 });
}

/** Uploads a file. @param progress called with the sent part, from 0 to 1 */
export async function upload(
  sandbox: string,
  path: string,
  file: File,
  progress: (part: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const url = await link({ sandbox, path, direction: "upload", expires_seconds: 86_400 });
  // The server may have several host names. The page may only call the host in its own address.
  const address = new URL(url).pathname;
  await new Promise<void>((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", address);
    const lost = new Unreachable(uploadBroke(file.name));
    request.upload.addEventListener("progress", ({ loaded, total }) => progress(total ? loaded / total : 1));
    request.addEventListener("error", () => reject(lost));
    request.addEventListener("abort", () => reject(new ToolFailed(uploadStopped(file.name))));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.addEventListener("load", () =>
      request.status < 300 ? resolve() : reject(new ToolFailed(`${file.name}: ${errorIn(request)}`)),
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
    return statusText(status);
  }
}
