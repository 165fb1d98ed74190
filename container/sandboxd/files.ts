/** Requests about files and what tasks leave, over plain HTTP: see `fileCalls` of the protocol. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { type Serve, answerBy, bodyOf, jsonOf } from "./answering.ts";
import { FileError } from "./file-error.ts";
import { sendSmaller } from "./images.ts";
import {
  type FileCalls,
  LINES_HEADER,
  MODIFIED_HEADER,
  SIZE_HEADER,
  editsSchema,
  fileCalls,
} from "./protocol.ts";
import { diskUsage, listDirectory, openFile, readLines, readRange, statOf } from "./reading.ts";
import { findChanges, sendTar } from "./tasks.ts";
import { Writes } from "./writing.ts";
import { zipped } from "./zip.ts";

/** Bytes of a range that are read at once; of a longer one the bytes are streamed. */
const AT_ONCE_BYTES = 512 * 1024;

/** How long a container that ends waits for changes of files that are under way, milliseconds. */
const REFUSE_MS = 10_000;

export class Files {
  readonly #writes = new Writes();
  #isEnding = false;
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #serve: { [Name in keyof FileCalls]: Serve<FileCalls[Name]> };

  constructor() {
    this.#serve = {
      "GET /files": sendRange,
      "GET /lines": sendLines,
      "PUT /files": (call, request) => this.#change(() => this.#writes.write(call, bodyOf(request))),
      "POST /edit": (call, request) =>
        this.#change(async () => this.#writes.edit(call, editsSchema.parse(await jsonOf(request)))),
      "DELETE /files": async (call) => {
        await this.#change(() => this.#writes.remove(call));
        return {};
      },
      "GET /stat": (call, _request, response) => statOf(call, () => !response.destroyed),
      "GET /archive": sendArchive,
      "GET /list": (call, _request, response) => listDirectory(call, () => !response.destroyed),
      "GET /usage": async ({ path }) => ({ bytes: await diskUsage(path) }),
      "POST /changes": async (call, _request, response) => ({
        changes: await findChanges(call, closed(response)),
      }),
      "POST /image": sendSmaller,
    };
  }

  /** Completes or removes the writes that an earlier sandboxd began. */
  begin(): void {
    this.#writes.recover();
  }

  /** Changes no more files: the container ends. Resolves when the changes under way are made, or REFUSE_MS later. */
  async refuse(): Promise<void> {
    this.#isEnding = true;
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, REFUSE_MS);
    await Promise.race([late, Promise.allSettled(this.#underWay)]);
    clearTimeout(timer);
  }

  async #change<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isEnding) throw new FileError({ problem: "ending" });
    const change = work();
    this.#underWay.add(change);
    try {
      return await change;
    } finally {
      this.#underWay.delete(change);
    }
  }

  /** Answers a request; undefined for one that is none of these. */
  answer(request: IncomingMessage, response: ServerResponse): Promise<void> | undefined {
    return answerBy(fileCalls, this.#serve, request, response);
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
