/** Requests about files and what tasks leave, over plain HTTP: see `fileCalls` of the protocol. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { FileError, failureOf } from "./file-error.ts";
import {
  FAILED,
  type FileCalls,
  LINES_HEADER,
  MODIFIED_HEADER,
  SIZE_HEADER,
  editsSchema,
  fileCalls,
} from "./protocol.ts";
import { diskUsage, listDirectory, openFile, readLines, readRange, statOf } from "./reading.ts";
import { chooseFiles, findChanges, sendChosen, sendTar } from "./tasks.ts";
import { Writes } from "./writing.ts";
import { zipped } from "./zip.ts";

/** Bytes of a range that are read at once; of a longer one the bytes are streamed. */
const AT_ONCE_BYTES = 512 * 1024;

type Serve<Call> = (call: Call, request: IncomingMessage, response: ServerResponse) => Promise<unknown>;

export class Files {
  readonly #writes = new Writes();
  readonly #serve: { [Name in keyof FileCalls]: Serve<FileCalls[Name]> };

  constructor() {
    this.#serve = {
      "GET /files": sendRange,
      "GET /lines": sendLines,
      "PUT /files": (call, request) => this.#writes.write(call, bodyOf(request)),
      "POST /edit": async (call, request) =>
        this.#writes.edit(call, editsSchema.parse(await jsonOf(request))),
      "DELETE /files": async (call) => {
        await this.#writes.remove(call);
        return {};
      },
      "GET /stat": (call, _request, response) => statOf(call, () => !response.destroyed),
      "GET /archive": sendArchive,
      "GET /list": async (call, _request, response) => ({
        entries: await listDirectory(call, () => !response.destroyed),
      }),
      "GET /usage": async ({ path }) => ({ bytes: await diskUsage(path) }),
      "POST /changes": async (call, _request, response) => ({
        changes: await findChanges(call, closed(response)),
      }),
      "POST /choice": (call, _request, response) => chooseFiles(call, closed(response)),
      "GET /choice": (call, _request, response) => sendChosen(call, response),
    };
  }

  /** Completes or removes the writes that an earlier sandboxd began. */
  begin(): void {
    this.#writes.recover();
  }

  /** Answers a request; undefined for one that is none of these. */
  answer(request: IncomingMessage, response: ServerResponse): Promise<void> | undefined {
    const target = request.url ?? "";
    if (!URL.canParse(target, "http://sandboxd")) return undefined;
    const { pathname, searchParams } = new URL(target, "http://sandboxd");
    const name = `${request.method} ${pathname}`;
    return isCall(name) ? this.#answer(name, searchParams, request, response) : undefined;
  }

  async #answer(
    name: keyof FileCalls,
    searchParams: URLSearchParams,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const call = fileCalls[name].safeParse(Object.fromEntries(searchParams));
    if (!call.success) return void response.writeHead(400).end("no such call\n");
    try {
      const answer = await (this.#serve[name] as Serve<unknown>)(call.data, request, response);
      if (answer !== undefined) sendJSON(response, 200, answer);
    } catch (error) {
      if (response.headersSent) return void response.destroy();
      sendJSON(response, FAILED, failureOf(error));
      // A client whose connection is closed while it sends does not see the answer.
      request.resume();
    }
  }
}

/** How long it may take to look through a workspace, milliseconds. */
const LOOK_MS = 600_000;

/** Aborts when that takes too long, or nobody waits for the answer any more. */
function closed(response: ServerResponse): AbortSignal {
  const abort = new AbortController();
  response.once("close", () => abort.abort());
  return AbortSignal.any([abort.signal, AbortSignal.timeout(LOOK_MS)]);
}

/** The body, which is not closed when reading it ends early. */
function bodyOf(request: IncomingMessage): AsyncIterable<Buffer> {
  return request.iterator({ destroyOnReturn: false });
}

/** Bytes of a body of JSON at most. */
const MAX_JSON_BYTES = 32 * 1024 * 1024;

async function jsonOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of bodyOf(request)) {
    bytes += chunk.length;
    if (bytes > MAX_JSON_BYTES) throw new FileError({ problem: "too_large" });
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString());
}

function isCall(name: string): name is keyof FileCalls {
  return Object.hasOwn(fileCalls, name);
}

async function sendRange(
  { path, offset, limit }: FileCalls["GET /files"],
  _request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const opened = await openFile(path);
  const { handle, stats } = opened;
  try {
    const headers = { [SIZE_HEADER]: stats.size, [MODIFIED_HEADER]: Math.floor(stats.mtimeMs) };
    const rest = Math.max(0, stats.size - offset);
    // Files below /proc and /sys report a size of 0, whatever they hold.
    const length = stats.size === 0 ? Math.min(limit, AT_ONCE_BYTES) : Math.min(limit, rest);
    if (length <= AT_ONCE_BYTES) {
      const bytes = await readRange(opened, offset, length);
      return void response.writeHead(200, { ...headers, "content-length": bytes.length }).end(bytes);
    }
    response.writeHead(200, { ...headers, "content-length": length });
    const source = handle.createReadStream({
      start: offset,
      end: offset + length - 1,
      highWaterMark: AT_ONCE_BYTES,
      autoClose: false,
    });
    await pipeline(source, response);
  } finally {
    await handle.close();
  }
}

/** Packs a directory while it is sent; one that cannot be packed to its end breaks off. */
async function sendArchive(
  { path, format }: FileCalls["GET /archive"],
  _request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if ((await statOf({ path }, () => true)).type !== "directory")
    throw new FileError({ problem: "not_directory" });
  if (format === "tar.gz") return await sendTar(["--directory", path, "."], response);
  const abort = new AbortController();
  response.once("close", () => abort.abort());
  response.writeHead(200, { "content-type": "application/zip" });
  await pipeline(zipped(path, abort.signal), response);
}

async function sendLines(
  call: FileCalls["GET /lines"],
  _request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const opened = await openFile(call.path);
  try {
    const { bytes, lines } = await readLines(opened, call, () => !response.destroyed);
    response
      .writeHead(200, {
        [SIZE_HEADER]: opened.stats.size,
        [MODIFIED_HEADER]: Math.floor(opened.stats.mtimeMs),
        [LINES_HEADER]: lines,
        "content-length": bytes.length,
      })
      .end(bytes);
  } finally {
    await opened.handle.close();
  }
}

function sendJSON(response: ServerResponse, status: number, value: object | unknown): void {
  const body = JSON.stringify(value);
  response
    .writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) })
    .end(body);
}
