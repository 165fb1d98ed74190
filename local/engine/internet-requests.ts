/** The requests to the internet that the Worker sends for a sandbox, such as those with a secret. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { endStalled } from "./piece-limit.ts";

/** The most open requests. The Worker sends at most 16 at once, so the others are requests whose end the engine has not noticed yet. */
export const MAX_INTERNET_REQUESTS = 32;
/**
 * How long a host may read nothing of a request's body, in milliseconds. Each such request could keep 4 MB of the machine's TCP memory.
 */
const STALL_MS = 60_000;

export class InternetRequests {
  readonly #stallMs: number;
  readonly #open = new Set<ServerResponse>();
  #isClosed = false;

  constructor(stallMs = STALL_MS) {
    this.#stallMs = stallMs;
  }

  /** Counts a request until its response closes. Returns false if the sandbox has too many, or has ended. */
  add(request: IncomingMessage, response: ServerResponse): boolean {
    if (this.#isClosed || this.#open.size >= MAX_INTERNET_REQUESTS) return false;
    this.#open.add(response);
    response.once("close", () => this.#open.delete(response));
    endStalled(request, response, this.#stallMs, () => response.destroy());
    return true;
  }

  /** Ends all requests and refuses new ones. */
  close(): void {
    this.#isClosed = true;
    for (const response of this.#open) response.destroy();
  }
}
