/** Files of a sandbox as HTTP responses. All bodies are streamed. */
import { announcedBytes, readBody } from "../shared/stream-bytes.ts";
import mime from "mime/lite";
import type { Input } from "../../container/sandboxd/operations.ts";
import type { FileStat } from "../../container/sandboxd/shapes.ts";
import { callSandbox, operate } from "../actors/sandbox-client.ts";
import type { Sandbox } from "../actors/sandbox.ts";
import type { Owner } from "../actors/account-calls.ts";
import { malformedResponse } from "../container/file-operations.ts";
import type { Env } from "../shared/config.ts";
import { type ErrorCode, ToolError } from "../shared/errors.ts";
import { RequestMemory, SMALL_BYTES, type StreamRequester } from "../shared/request-memory.ts";
import type { RunLink } from "../shared/link-token.ts";
import { LOG_NAME } from "../shared/resource-uri.ts";
import { json } from "../shared/responses.ts";
import * as texts from "./texts.ts";

const FORM_OVERHEAD_BYTES = 1024 * 1024;

/** For content from a sandbox: browsers run no scripts in it, let no other site embed it, and tell no site its address. */
const HEADERS = {
  "content-security-policy": "sandbox; default-src 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
};

/** In `Want-Repr-Digest` (RFC 9530, section 4): a preference for SHA-256 that is not 0. */
const DIGEST_WANTED = /(?:^|[\s,])sha-256=(?:[1-9]|10)(?:$|[\s,;])/;

const MAX_UNSIZED_BYTES = 512 * 1024;

export interface FileCall {
  request: Request;
  env: Env;
  ctx: ExecutionContext;
  owner: Owner;
  /** How the request is authenticated. */
  by: StreamRequester;
  path: string;
}

/** Sends a file that reports size 0. Files in /proc always report 0, even if they have content. */
async function sendSmall({ request, env, owner, path }: FileCall, headers: Headers): Promise<Response> {
  const { bytes } = await operate(env, owner, "read", { path, offset: 0, limit: MAX_UNSIZED_BYTES });
  if (bytes.length === MAX_UNSIZED_BYTES) throw texts.sizeUnknown(path, MAX_UNSIZED_BYTES);
  if (bytes.length > 0) for (const name of ["etag", "repr-digest", "accept-ranges"]) headers.delete(name);
  headers.set("content-length", String(bytes.length));
  return new Response(request.method === "HEAD" ? null : bytes, { headers });
}

type ArchiveFormat = Input<"archive">["format"];

const ARCHIVE_TYPES: Record<ArchiveFormat, string> = { "tar.gz": "application/gzip", zip: "application/zip" };

function archiveFormat(request: Request): ArchiveFormat | undefined {
  const archive = new URL(request.url).searchParams.get("archive");
  if (archive === null || archive === "tar.gz" || archive === "zip") return archive ?? undefined;
  throw texts.unknownArchive();
}

/**
 * Sends a file or the requested range, or a directory as an archive. @param sendDirectory responds for a directory if the
 * request does not choose an archive format
 */
export async function sendFile(call: FileCall, sendDirectory: () => Promise<Response>): Promise<Response> {
  const { request, env, owner, path } = call;
  const format = archiveFormat(request);
  const wantsDigest = DIGEST_WANTED.test(request.headers.get("want-repr-digest") ?? "");
  const stat = await operate(env, owner, "stat", { path, digest: wantsDigest });
  if (stat.type === "directory") return format === undefined ? sendDirectory() : sendArchive(call, format);
  if (format !== undefined) throw texts.fileNotArchived(path);
  const { headers, status, offset, length } = headersAndRange(request, path, stat);
  if (status === 416) return new Response(null, { status, headers });
  if (stat.size === 0) return sendSmall(call, headers);
  if (request.method === "HEAD") return new Response(null, { status, headers });
  const body = await countedDownload(call, length, async () => {
    const opened = await operate(env, owner, "open", { path, offset, limit: length });
    if (opened.length !== length) {
      await opened.body.cancel();
      if (opened.size > 0 && opened.size < offset + length) throw texts.becameShorter(path);
      throw malformedResponse();
    }
    // The file has changed, so size and digest no longer describe it.
    if (opened.size !== stat.size || opened.modified !== stat.modified)
      for (const name of ["etag", "last-modified", "repr-digest"]) headers.delete(name);
    return opened.body;
  });
  return new Response(body, { status, headers });
}

/**
 * Opens a body, and counts its memory until the client has read it or has disconnected.
 * @param length undefined if it is not known
 * @throws {ToolError} `quota_exceeded`
 */
async function countedDownload(
  { request, ctx, owner, by }: Pick<FileCall, "request" | "ctx" | "owner" | "by">,
  length: number | undefined,
  open: () => Promise<ReadableStream<Uint8Array>>,
): Promise<ReadableStream> {
  const { readable, writable } =
    length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
  const isSmall = length !== undefined && length <= SMALL_BYTES;
  const memory = isSmall ? undefined : RequestMemory.forStream(owner.principalID, by, request.signal);
  const release = () => memory?.release();
  try {
    ctx.waitUntil((await open()).pipeTo(writable).then(release, release));
    return readable;
  } catch (error) {
    release();
    throw error;
  }
}

/** Sends an output of a run. `name` is its name in `sandbox://` addresses. */
export async function sendRunFile(
  call: Omit<FileCall, "path">,
  { run, name }: Pick<RunLink, "run" | "name">,
): Promise<Response> {
  const { request, env, owner } = call;
  const find = (actor: DurableObjectStub<Sandbox>, known: Owner) => actor.statRunFile(known, run, name);
  const stat = await callSandbox(env, owner, find, { isRepeatable: true });
  const shown = name === LOG_NAME ? `${run}.log` : name;
  const { headers, status, offset, length } = headersAndRange(request, shown, stat);
  if (status === 416 || request.method === "HEAD" || length === 0)
    return new Response(null, { status, headers });
  const open = (actor: DurableObjectStub<Sandbox>, known: Owner) =>
    actor.openRunFile(known, run, name, offset, length);
  const body = await countedDownload(call, length, () => callSandbox(env, owner, open));
  return new Response(body, { status, headers });
}

function headersAndRange(
  request: Request,
  path: string,
  stat: Pick<FileStat, "size" | "modified" | "sha256">,
): { headers: Headers; status: 200 | 206 | 416; offset: number; length: number } {
  const headers = new Headers({
    ...HEADERS,
    ...attachment(path),
    "content-type": mime.getType(path) ?? "application/octet-stream",
    "accept-ranges": "bytes",
    "last-modified": new Date(stat.modified).toUTCString(),
    etag: etagOf(stat),
  });
  if (stat.sha256 !== undefined)
    headers.set("repr-digest", `sha-256=:${Uint8Array.fromHex(stat.sha256).toBase64()}:`);
  const range = rangeOf(request, stat);
  if (range === "unsatisfiable") {
    headers.set("content-range", `bytes */${stat.size}`);
    return { headers, status: 416, offset: 0, length: 0 };
  }
  const { offset, length } = range ?? { offset: 0, length: stat.size };
  headers.set("content-length", String(length));
  if (range) headers.set("content-range", `bytes ${offset}-${offset + length - 1}/${stat.size}`);
  return { headers, status: range ? 206 : 200, offset, length };
}

export async function sendArchive(call: FileCall, format: ArchiveFormat): Promise<Response> {
  const { request, env, owner, path } = call;
  const headers = new Headers({
    ...HEADERS,
    ...attachment(`${path === "/" ? "sandbox" : path}.${format}`),
    "content-type": ARCHIVE_TYPES[format],
  });
  if (request.method === "HEAD") return new Response(null, { headers });
  const body = await countedDownload(
    call,
    undefined,
    async () => (await operate(env, owner, "archive", { path, format })).body,
  );
  return new Response(body, { headers });
}

/** Headers for a part of a file, or for a condition. A server that ignored them could destroy a file (RFC 9110, 13.1 and 14.5). */
const UNSUPPORTED_HEADERS = ["content-range", "if-match", "if-none-match", "if-unmodified-since"];

/** @throws {ToolError} if a request that changes a file has a header that this server cannot obey */
export async function refuseConditions(request: Request): Promise<void> {
  const header = UNSUPPORTED_HEADERS.find((name) => request.headers.has(name));
  if (header === undefined) return;
  await drainBody(request);
  throw texts.unsupportedHeader(header);
}

/** Writes the request's body, or the file of its form, into the sandbox. @param max in bytes */
export async function receiveFile({ request, env, owner, path }: FileCall, max: number) {
  await refuseConditions(request);
  if (isTooLarge(request, max)) {
    await drainBody(request);
    throw texts.uploadTooLarge(max);
  }
  try {
    const { size, sha256 } = await operate(env, owner, "store", { path, max, ...bodyOf(request) });
    return { size, sha256 };
  } catch (error) {
    throw error instanceof ToolError && error.code === "too_large" ? texts.uploadTooLarge(max) : error;
  }
}

/** Adds a mark to the end of a stream. If the mark is missing, the receiver knows that the stream was cut off. */
function appendMark(body: ReadableStream, mark: Uint8Array): ReadableStream {
  return body.pipeThrough(
    new TransformStream({
      transform: (chunk, controller) => controller.enqueue(chunk),
      flush: (controller) => controller.enqueue(mark),
    }),
  );
}

/** How long the body of a refused upload is read before the response. */
const DRAIN_MS = 5000;

/**
 * Reads the body of a refused request. If the server closed the connection while the client was still sending, the client might
 * not see the response. A client that waits for 100 Continue has sent nothing.
 */
export async function drainBody(request: Request): Promise<void> {
  if (request.headers.has("expect")) return;
  await readBody(request, { maxBytes: 0, drainBytes: Infinity, ms: DRAIN_MS }).catch(() => undefined);
}

const isForm = ({ headers }: Request) => /^multipart\/form-data\b/i.test(headers.get("content-type") ?? "");

function isTooLarge(request: Request, max: number): boolean {
  const length = announcedBytes(request.headers) ?? 0;
  return length > max + (isForm(request) ? FORM_OVERHEAD_BYTES : 0);
}

function bodyOf(
  request: Request,
): Pick<Input<"store">, "body"> & { length?: number; mark?: string; form?: string } {
  const { headers, body } = request;
  const length = announcedBytes(headers);
  const form = isForm(request) ? (headers.get("content-type") ?? "") : undefined;
  if (body === null)
    return { body: new Blob([]).stream(), ...(form === undefined ? { length: 0 } : { form }) };
  if (form !== undefined) return { body, form };
  if (length !== undefined) return { body, length };
  const mark = crypto.getRandomValues(new Uint8Array(16));
  return { body: appendMark(body, mark), mark: mark.toHex() };
}

const STATUS: Partial<Record<ErrorCode, number>> = {
  invalid_argument: 400,
  permission_denied: 403,
  not_found: 404,
  is_directory: 409,
  not_directory: 409,
  too_large: 413,
  quota_exceeded: 429,
  no_space: 507,
  internal: 500,
};

export function fileErrorResponse(error: ToolError): Response {
  const { message, code, hint } = error;
  return json({ error: message, code, hint: hint || undefined }, STATUS[code] ?? 503);
}

function etagOf({ modified, size }: Pick<FileStat, "modified" | "size">): string {
  return `"${modified.toString(36)}-${size.toString(36)}"`;
}

/** The requested range; undefined for the whole file. For several ranges, a server may send the whole file. */
function rangeOf({ headers }: Request, stat: Pick<FileStat, "modified" | "size">) {
  const { size } = stat;
  const [, first, last] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(headers.get("range")?.trim() ?? "") ?? [];
  if (first === undefined || last === undefined || (first === "" && last === "")) return undefined;
  const validator = headers.get("if-range");
  if (validator !== null && validator !== etagOf(stat)) return undefined;
  const offset = first === "" ? Math.max(0, size - Number(last)) : Number(first);
  const end = first === "" || last === "" ? size : Math.min(size, Number(last) + 1);
  if (first !== "" && last !== "" && Number(last) < Number(first)) return undefined;
  return offset < end ? { offset, length: end - offset } : "unsatisfiable";
}

function attachment(path: string): { "content-disposition": string } {
  const name = path.slice(path.lastIndexOf("/") + 1);
  const plain = name.replaceAll(/[^\w .()+-]/g, "_");
  const escaped = (sign: string) => `%${sign.charCodeAt(0).toString(16)}`;
  const exact = encodeURIComponent(name.toWellFormed()).replaceAll(/['()*]/g, escaped);
  return { "content-disposition": `attachment; filename="${plain}"; filename*=UTF-8''${exact}` };
}
