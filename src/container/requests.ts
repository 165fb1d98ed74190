/** Plain requests to sandboxd, over the platform's way into the container that runs. */
import { ToolError, sandboxUnresponsive } from "../shared/errors.ts";
import { pause } from "../shared/within.ts";
import { containerGone } from "./gone.ts";

/** The container as this folder sees it. */
export interface Sandboxd {
  readonly isRunning: boolean;
  fetch(request: Request): Promise<Response>;
  /** The sandbox is in use. */
  used(): void;
}

/** How long to try while sandboxd does not answer, as when it is being restarted, and the pause between two attempts. Milliseconds. */
export const CONNECT_MS = 10_000;
export const RETRY_MS = 50;

export class Requests {
  readonly #sandboxd: Sandboxd;

  constructor(sandboxd: Sandboxd) {
    this.#sandboxd = sandboxd;
  }

  /**
   * Makes a request to the container that runs, also before it has its workspace, and reads the answer. Repeats both where
   * sandboxd does not answer or the connection breaks, unless the body is a stream, which can be sent only once.
   * @param isThere whether there is a container that the request is for; called before each attempt
   * @throws {ToolError} `no_answer` where nothing answers, `sandbox_restarted`, and what `read` throws
   */
  async request<T>(
    path: string,
    init: RequestInit,
    signal: AbortSignal,
    read: (response: Response) => Promise<T>,
    isThere: () => boolean = () => this.#sandboxd.isRunning,
  ): Promise<T> {
    const isStream = init.body instanceof ReadableStream;
    // sandboxd must answer before a stream is sent, which cannot be sent again.
    if (isStream) await this.request("/", {}, signal, async ({ body }) => body?.cancel(), isThere);
    const startedAt = Date.now();
    let deadline = startedAt + CONNECT_MS;
    for (;;) {
      if (!isThere()) throw containerGone();
      const sentAt = Date.now();
      try {
        const request = new Request(`http://sandboxd${path}`, { ...init, signal });
        return await read(await this.#sandboxd.fetch(request));
      } catch (error) {
        if (error instanceof ToolError) throw error;
        signal.throwIfAborted();
        // The container may be ending. The actor looks for a while, and says so where only the connection broke.
        if (isStream || !isThere()) throw containerGone();
        // Somebody was there, and was at work for so long: sandboxd is being started again.
        if (Date.now() - sentAt >= CONNECT_MS) deadline = Date.now() + CONNECT_MS;
        if (Date.now() >= deadline) throw sandboxUnresponsive(Date.now() - startedAt);
        await pause(RETRY_MS);
      }
    }
  }
}
