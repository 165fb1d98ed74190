/** Counts the memory that a principal's requests use: bodies, and answers that their clients have not read yet. */
import { tooMuchUnread } from "./errors.ts";
import { CALL_BYTES, hasRoomFor, hold, holdWhenRoom, MAX_HELD_BYTES } from "./limits.ts";
import { CALL_MS } from "./timers.ts";

/** A smaller response counts as read at once, because it fits into the buffers of its connection. */
export const SMALL_BYTES = 256 * 1024;

/** How many times a body counts: as values, and as their copy on the way to an actor. */
const BODY_COPIES = 2;

/** The room that long bodies leave for other calls of their principal. */
const ROOM_FOR_SHORT = 4 * 1024 * 1024;

/** What a download or a stream of events counts until its client has read it: a page of a log, its copies, and the buffers of connections. */
const STREAM_BYTES = 512 * 1024;

/** How a stream is authenticated. */
export type StreamRequester = "token" | "link";

export class RequestMemory {
  readonly #holder: string;
  readonly #client: AbortSignal;
  #bytes = 0;
  #isReleased = false;
  /** What to do when the client has read the stream; undefined if the response is no stream, or has not begun. */
  #whenRead: (() => Promise<void>)[] | undefined;

  /**
   * @param holder the principal, or one kind of its streams. The bytes of each holder are counted separately
   * @param client aborts when the client disconnects. The runtime may then end the request without running its `catch` and
   * `finally` blocks
   */
  constructor(holder: string, client: AbortSignal) {
    this.#holder = holder;
    this.#client = client;
    if (client.aborted) this.release();
    else client.addEventListener("abort", () => this.release());
  }

  /** Counts a call. Its body and answer are added later. A call beyond the limit is counted too, until it is refused. */
  static forCall(principalID: string, client: AbortSignal): RequestMemory {
    const memory = new RequestMemory(principalID, client);
    memory.add(CALL_BYTES);
    return memory;
  }

  /**
   * Counts a download or a stream of events. Requests by link have a separate limit, because a link works without a token.
   * @throws {ToolError} `quota_exceeded`
   */
  static forStream(principalID: string, by: StreamRequester, client: AbortSignal): RequestMemory {
    const memory = new RequestMemory(`streams by ${by} of ${principalID}`, client);
    memory.addAnswer(STREAM_BYTES, true);
    return memory;
  }

  /** Counts further calls of the same body. @returns false, and counts none, if there is no room for them */
  addCalls(count: number): boolean {
    const bytes = count * CALL_BYTES;
    const hasRoom = this.hasRoomFor(bytes);
    if (hasRoom) this.add(bytes);
    return hasRoom;
  }

  hasRoomFor(bytes: number): boolean {
    return hasRoomFor(this.#holder, bytes);
  }

  /**
   * Counts a long body before it has arrived. Waits for room, because a client may well send some large files at once. The room is for the whole
   * body: bodies that each have room for a part would wait for each other.
   * @returns the function that corrects the count when the body has arrived; undefined if there is no room after CALL_MS
   */
  async addBody(bytes: number): Promise<((arrived: number) => void) | undefined> {
    return (await this.#waitForRoom(BODY_COPIES * bytes))
      ? (arrived) => this.add(BODY_COPIES * (arrived - bytes))
      : undefined;
  }

  /**
   * Counts an image during the work that reads and changes it. Waits for room as a long body does.
   * @throws {ToolError} `quota_exceeded` if there is no room after CALL_MS
   */
  async whileHoldingImage<T>(bytes: number, work: () => Promise<T>): Promise<T> {
    const counted = BODY_COPIES * bytes;
    if (!(await this.#waitForRoom(counted))) throw tooMuchUnread(MAX_HELD_BYTES);
    try {
      return await work();
    } finally {
      this.add(-counted);
    }
  }

  async #waitForRoom(bytes: number): Promise<boolean> {
    const wait = { ms: CALL_MS, roomToLeave: ROOM_FOR_SHORT, isOver: () => this.#isReleased };
    const hasRoom = await holdWhenRoom(this.#holder, bytes, wait);
    if (hasRoom) this.#bytes += bytes;
    // The client has disconnected just now.
    if (hasRoom && this.#isReleased) hold(this.#holder, -bytes);
    return hasRoom;
  }

  /** Adds an answer. @throws {ToolError} `quota_exceeded` if the principal is over its limit and the answer may be withheld */
  addAnswer(bytes: number, mayWithhold: boolean): void {
    if (mayWithhold && !this.hasRoomFor(bytes)) throw tooMuchUnread(MAX_HELD_BYTES);
    this.add(bytes);
  }

  add(bytes: number): void {
    if (this.#isReleased) return;
    this.#bytes += bytes;
    hold(this.#holder, bytes);
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
    if (!body || (!mayGrow && this.#bytes <= CALL_BYTES + SMALL_BYTES)) {
      this.release();
      return response;
    }
    if (mayGrow) this.#whenRead = [];
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
    hold(this.#holder, -this.#bytes);
  }
}

/**
 * Counts an answer as memory until the client has read it. Each call does this once. The answer counts as it is sent: structured data may
 * be much larger than the text.
 * @param mayWithhold false if the caller cannot repeat the call
 * @throws {ToolError} `quota_exceeded` if the principal has too many unread answers and this one may be withheld
 */
export function countAnswer(memory: RequestMemory | undefined, answer: object, mayWithhold: boolean): void {
  memory?.addAnswer(JSON.stringify(answer).length, mayWithhold);
}
