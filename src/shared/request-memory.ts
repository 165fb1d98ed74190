/**
 * Limits the memory that a principal's requests use: calls in progress, bodies that arrive, and answers that their clients have
 * not read yet. Without a limit, one batch request whose client reads nothing could keep a hundred answers of 9 MB in memory.
 */

import { tooMuchUnread } from "./errors.ts";
import { keepOpen } from "./open-requests.ts";
import { CALL_MS, pause } from "./timers.ts";
import { Turns, TurnsByID } from "./turns.ts";

/**
 * The most bytes of one principal in this process. The largest body has 8 MiB, the largest answer of a tool 9 MiB. On Cloudflare, an
 * isolate has 128 MB for everything. Measured with a limit of 128 MiB: 16 bodies took 385 MiB of V8's heap, and unread answers 199.
 */
export const MAX_MEMORY_BYTES = 32 * 1024 * 1024;

/**
 * A smaller response counts as read at once. It takes time to follow how a client reads, and a response of this size fits into
 * the connection's buffers (4 MB on loopback).
 */
export const SMALL_BYTES = 256 * 1024;

/**
 * The bytes that a call counts in addition to its body and answer. They limit a principal to 2,048 calls at once. Measured: 1,500
 * waiting calls took 9 MiB of V8's heap, and 90 MB of the process.
 */
export const CALL_BYTES = 16 * 1024;

/** How many times a body counts: as values, and as their copy on the way to an actor. */
const BODY_COPIES = 2;

/** The room that long bodies leave for other calls of their principal. */
const ROOM_FOR_SHORT = 4 * 1024 * 1024;

/**
 * The most bodies and images of a principal that wait for room. Without this limit, any number of calls that send only the beginning of a
 * long body could wait.
 */
const MAX_WAITING = 512;

/** How often a body or image that waits for room looks for it. */
const ROOM_MS = 20;

/**
 * The memory of a download or a stream of events whose client does not read: a page of a log, its copies, and the buffers of
 * connections. They limit a principal to 64 streams at once.
 */
const STREAM_BYTES = 512 * 1024;

/** The most streams of one link at once. Programs that download parts of a file open about this many at most. */
const MAX_OF_LINK = 16;

/** How a stream is authenticated: by a token, or by a link, which has this path. */
export type StreamRequester = "token" | { link: string };

const usedBytes = new Map<string, number>();

/** Only the first body or image of a principal that waits for room looks for it. */
const waiting = new TurnsByID(() => new Turns(1));

export class RequestMemory {
  readonly #key: string;
  readonly #client: AbortSignal;
  #bytes = 0;
  #bodyBytes = 0;
  #isReleased = false;
  /** What to do when the client has read the stream; undefined if the response is no stream, or has not begun. */
  #whenRead: (() => Promise<void>)[] | undefined;
  /** For a stream by link: the count of all such streams of its principal, which ends with this one. */
  #ofAll: RequestMemory | undefined;
  #close: (() => void) | undefined;

  /**
   * @param key the principal, or one kind of its streams. The bytes of each key are counted separately
   * @param client aborts when the client disconnects. The runtime may then end the request without running its `catch` and
   * `finally` blocks
   */
  constructor(key: string, client: AbortSignal) {
    this.#key = key;
    this.#client = client;
    if (client.aborted) this.release();
    else client.addEventListener("abort", () => this.release());
  }

  /** Counts a call. Its body and answer are added later. A call beyond the limit is counted too, and refused with its body. */
  static forCall(principalID: string, client: AbortSignal): RequestMemory {
    const memory = new RequestMemory(principalID, client);
    memory.add(CALL_BYTES);
    return memory;
  }

  /**
   * Counts a download or a stream of events. Requests by link have a separate limit, because a link works without a token: a
   * person with a link must not be able to block the principal's own requests, or those of everybody with another link.
   * @throws {ToolError} `quota_exceeded`
   */
  static forStream(principalID: string, by: StreamRequester, client: AbortSignal): RequestMemory {
    const ofAll = new RequestMemory(`streams by ${by === "token" ? by : "link"} of ${principalID}`, client);
    ofAll.addAnswer(STREAM_BYTES, true);
    ofAll.#close = keepOpen(client);
    if (by === "token") return ofAll;
    const ofLink = new RequestMemory(`streams of ${by.link}`, client);
    ofLink.#ofAll = ofAll;
    try {
      ofLink.addAnswer(MAX_MEMORY_BYTES / MAX_OF_LINK, true);
    } catch (error) {
      ofLink.release();
      throw error;
    }
    return ofLink;
  }

  /** Counts further calls of the same body. @returns false, and counts none, if there is no room for them */
  addCalls(count: number): boolean {
    return this.#addIfRoom(count * CALL_BYTES);
  }

  #addIfRoom(bytes: number, roomToLeave = 0): boolean {
    const hasRoom = this.hasRoomFor(bytes + roomToLeave);
    if (hasRoom) this.add(bytes);
    return hasRoom;
  }

  hasRoomFor(bytes: number): boolean {
    return (usedBytes.get(this.#key) ?? 0) + bytes <= MAX_MEMORY_BYTES;
  }

  /** Counts a short body. @returns false, and counts nothing, if there is no room */
  addBody(bytes: number, roomToLeave = 0): boolean {
    const counted = BODY_COPIES * bytes;
    const hasRoom = this.#addIfRoom(counted, roomToLeave);
    if (hasRoom) this.#bodyBytes += counted;
    return hasRoom;
  }

  /** Counts the body that has arrived, in place of the announced one. */
  shrinkBody(bytes: number): void {
    const less = this.#bodyBytes - BODY_COPIES * bytes;
    this.#bodyBytes -= less;
    this.add(-less);
  }

  /**
   * Counts a long body before it has arrived. Waits for room if there is none, because a client may well send some large files at
   * once. The room is for the whole body: bodies that each have room for a part would wait for each other. Leaves ROOM_FOR_SHORT.
   * @returns false, and counts nothing, if there is no room after CALL_MS, or too many wait
   */
  addLongBody(bytes: number): Promise<boolean> {
    return this.#waitFor(() => this.addBody(bytes, ROOM_FOR_SHORT));
  }

  /**
   * Counts an image during the work that reads and changes it. Waits for room as a long body does. Measured without this: 16 images
   * of 6.4 MiB, which were scaled down at the same time, took 244 MiB of V8's heap.
   * @throws {ToolError} `quota_exceeded` if there is no room after CALL_MS, or too many wait
   */
  async whileHoldingImage<T>(bytes: number, work: () => Promise<T>): Promise<T> {
    const counted = BODY_COPIES * bytes;
    const hasRoom = await this.#waitFor(() => this.#addIfRoom(counted, ROOM_FOR_SHORT));
    if (!hasRoom) throw tooMuchUnread(MAX_MEMORY_BYTES);
    try {
      return await work();
    } finally {
      this.add(-counted);
    }
  }

  async #waitFor(addIfRoom: () => boolean): Promise<boolean> {
    if (addIfRoom()) return true;
    if (waiting.of(this.#key).waiting >= MAX_WAITING) return false;
    const until = Date.now() + CALL_MS;
    const end = await waiting.take(this.#key, CALL_MS, this.#client);
    let isCounted = false;
    while (end && !(isCounted = addIfRoom()) && !this.#isReleased && Date.now() < until) await pause(ROOM_MS);
    end?.();
    return isCounted;
  }

  /** Adds an answer. @throws {ToolError} `quota_exceeded` if the principal is over its limit and the answer may be withheld */
  addAnswer(bytes: number, mayWithhold: boolean): void {
    if (mayWithhold && !this.hasRoomFor(bytes)) throw tooMuchUnread(MAX_MEMORY_BYTES);
    this.add(bytes);
  }

  add(bytes: number): void {
    if (this.#isReleased) return;
    this.#bytes += bytes;
    usedBytes.set(this.#key, (usedBytes.get(this.#key) ?? 0) + bytes);
  }

  /**
   * Does the work unless the client has disconnected. If the response is a stream that has begun, does it when the client has read the
   * stream: only a write to the stream shows that the client is gone.
   */
  async whenRead(work: () => Promise<void>): Promise<void> {
    if (this.#whenRead) this.#whenRead.push(work);
    else if (!this.#client.aborted) await work();
  }

  /** Releases the bytes when the client has read the response or has disconnected. */
  releaseAfter(response: Response): Response {
    const { body, headers } = response;
    const mayGrow = headers.get("content-type")?.startsWith("text/event-stream") === true;
    // A response that does not grow is complete, so the server needs the request's body no more.
    if (!mayGrow) this.add(-this.#bodyBytes);
    if (!body || (!mayGrow && this.#bytes <= CALL_BYTES + SMALL_BYTES)) {
      this.release();
      return response;
    }
    if (mayGrow) this.#whenRead = [];
    this.#close ??= keepOpen(this.#client);
    const reader = body.getReader();
    const followed = new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          try {
            const { done, value } = await reader.read();
            if (!done) return controller.enqueue(value);
            this.release();
            await Promise.all((this.#whenRead ?? []).map((work) => work()));
            controller.close();
          } catch (error) {
            this.release();
            throw error;
          }
        },
        cancel: (reason) => {
          this.release();
          return reader.cancel(reason);
        },
      },
      { highWaterMark: 0 },
    );
    return new Response(followed, response);
  }

  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    this.#ofAll?.release();
    this.#close?.();
    const rest = (usedBytes.get(this.#key) ?? 0) - this.#bytes;
    if (rest > 0) usedBytes.set(this.#key, rest);
    else usedBytes.delete(this.#key);
  }
}
