/** The requests to the internet that the Worker sends for a sandbox, such as those with a secret. */
import type { IncomingMessage, ServerResponse } from "node:http";

/** The most open requests. The Worker sends at most 16 at once, so the others are requests whose end the engine has not noticed yet. */
export const MAX_INTERNET_REQUESTS = 32;
/**
 * How long a host may read nothing of a request's body, in milliseconds. The engine does not read the Worker's connection then, so
 * it would never notice that the Worker has disconnected. Each such request could keep 4 MB of the machine's TCP memory.
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
    let stalled: NodeJS.Timeout | undefined;
    const endStall = () => clearTimeout(stalled);
    request.on("resume", endStall).on("pause", () => {
      endStall();
      // Node also pauses a request when its whole body has been passed on. The host may respond later.
      if (this.#open.has(response) && !request.readableEnded)
        stalled = setTimeout(() => response.destroy(), this.#stallMs);
    });
    response.once("close", () => {
      endStall();
      this.#open.delete(response);
    });
    return true;
  }

  /** Ends all requests and refuses new ones. */
  close(): void {
    this.#isClosed = true;
    for (const response of this.#open) response.destroy();
  }
}
