/** Requests about files and results of tasks, over plain HTTP: see `operations.ts`. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { setTimeout as pause } from "node:timers/promises";
import { sendArchive } from "./archive.ts";
import { type Exchange, type Handlers, serveOperation, abortOnClose, bodyOf } from "./serve-operation.ts";
import { FileError } from "./file-error.ts";
import { boundedSize } from "./shapes.ts";
import { sendScaledFile, sendSmaller } from "./shrink-image.ts";
import { type Call, type FileRequests, fileRequests } from "./operations.ts";
import { diskUsage, listDirectory, modifiedOf, openFile, readLines, readRange, statOf } from "./reading.ts";
import { findChanges } from "./task-changes.ts";
import { workSinceLastCall } from "./work.ts";
import { Writes } from "./writing.ts";

const BUFFERED_BYTES = 512 * 1024;
const REFUSE_MS = 10_000;

export class FileHandlers {
  readonly #writes = new Writes();
  #isEnding = false;
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #handlers: Handlers<FileRequests> = {
    "GET /files": sendRange,
    "GET /lines": sendLines,
    "PUT /files": (call, { request }) => this.#writes.write(call, bodyOf(request)),
    "POST /edit": (call, { json }) => this.#writes.edit(call, json),
    "DELETE /files": (call) => this.#writes.remove(call),
    "GET /stat": (call, { isClientWaiting }) => statOf(call, isClientWaiting),
    "GET /archive": sendArchive,
    "GET /list": (call, { isClientWaiting }) => listDirectory(call, isClientWaiting),
    "GET /usage": async ({ path }) => ({ bytes: await diskUsage(path) }),
    "GET /work": async () => workSinceLastCall(),
    "POST /changes": async (call, { response }) => ({
      changes: await findChanges(call, abortOnClose(response, fileRequests.changes.timeoutMs)),
    }),
    "POST /image": sendSmaller,
    "GET /image": sendScaledFile,
  };

  begin(): void {
    this.#writes.recover();
  }

  /** Refuses further changes, because the container is stopping. Resolves when changes under way are done, or after REFUSE_MS. */
  async refuse(): Promise<void> {
    this.#isEnding = true;
    await Promise.race([Promise.allSettled(this.#underWay), pause(REFUSE_MS)]);
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

  respond(request: IncomingMessage, response: ServerResponse): Promise<void> | undefined {
    return serveOperation(fileRequests, this.#handlers, request, response, (row, call, work) =>
      row.changesState ? this.#change(() => this.#writes.once(call.id, work)) : work(),
    );
  }
}

async function sendRange(
  { path, offset, limit }: Call<FileRequests["read"]>,
  { begin }: Exchange<FileRequests["read"]>,
): Promise<void> {
  const opened = await openFile(path);
  const { handle, stats } = opened;
  try {
    const size = boundedSize(stats.size);
    const file = { size, modified: modifiedOf(stats) };
    const rest = Math.max(0, size - offset);
    // Files in /proc and /sys report size 0 whatever they contain.
    const length = size === 0 ? Math.min(limit, BUFFERED_BYTES) : Math.min(limit, rest);
    if (length <= BUFFERED_BYTES) {
      const bytes = await readRange(opened, offset, length);
      return void begin(file, bytes.length).end(bytes);
    }
    const source = handle.createReadStream({
      start: offset,
      end: offset + length - 1,
      highWaterMark: BUFFERED_BYTES,
      autoClose: false,
    });
    await pipeline(source, begin(file, length));
  } finally {
    await handle.close();
  }
}

async function sendLines(
  call: Call<FileRequests["readLines"]>,
  { begin, isClientWaiting }: Exchange<FileRequests["readLines"]>,
): Promise<void> {
  const opened = await openFile(call.path);
  try {
    const { bytes, lines } = await readLines(opened, call, isClientWaiting);
    begin({ size: boundedSize(opened.stats.size), lines }, bytes.length).end(bytes);
  } finally {
    await opened.handle.close();
  }
}
