/**
 * Bounds the memory of a principal's requests: the bodies that arrive, and the answers that wait until their clients read them. Without
 * a bound, one request that nobody reads could hold a hundred answers of 9 MB.
 */

import { tooMuchUnread } from "./errors.ts";

/** The most bytes that one principal holds in this process. The largest body has 8 MiB, the largest answer of a tool 9 MiB. */
export const MAX_HELD_BYTES = 128 * 1024 * 1024;

/** Responses up to this size are passed on without being followed, because that takes time. */
const SMALL_BYTES = 64 * 1024;

const heldBy = new Map<string, number>();

/** The bytes that one request holds. */
export class HeldBytes {
  readonly #principalID: string;
  #bytes = 0;
  #isReleased = false;

  constructor(principalID: string) {
    this.#principalID = principalID;
  }

  hasRoomFor(bytes: number): boolean {
    return (heldBy.get(this.#principalID) ?? 0) + bytes <= MAX_HELD_BYTES;
  }

  /** Adds an answer. @throws {ToolError} `quota_exceeded` if there is no room, and the answer may be withheld */
  addAnswer(bytes: number, mayWithhold: boolean): void {
    if (mayWithhold && !this.hasRoomFor(bytes)) throw tooMuchUnread(MAX_HELD_BYTES);
    this.add(bytes);
  }

  add(bytes: number): void {
    if (this.#isReleased) return;
    this.#bytes += bytes;
    heldBy.set(this.#principalID, (heldBy.get(this.#principalID) ?? 0) + bytes);
  }

  /** Releases the bytes when the client has read the response or has disconnected. */
  releaseAfter(response: Response): Response {
    const { body, headers } = response;
    const mayGrow = headers.get("content-type")?.startsWith("text/event-stream") === true;
    if (!body || (!mayGrow && this.#bytes <= SMALL_BYTES)) {
      this.release();
      return response;
    }
    const reader = body.getReader();
    const followed = new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          try {
            const { done, value } = await reader.read();
            if (!done) return controller.enqueue(value);
            this.release();
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
    const rest = (heldBy.get(this.#principalID) ?? 0) - this.#bytes;
    if (rest > 0) heldBy.set(this.#principalID, rest);
    else heldBy.delete(this.#principalID);
  }
}
