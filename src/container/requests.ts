/** Plain requests to sandboxd, through the platform's connection to the running container. */
import { ToolError, sandboxUnresponsive } from "../shared/errors.ts";
import { pause } from "../shared/within.ts";
import { containerGone } from "./texts.ts";

export interface Sandboxd {
  readonly isRunning: boolean;
  fetch(request: Request): Promise<Response>;
  used(): void;
}

export interface ContainerLifecycle {
  /** Whether a container runs and is not ending. Its workspace may not be restored yet. */
  readonly isRunning: boolean;
  /** The container with its workspace; undefined if there is none, or it is ending. */
  readonly container: object | undefined;
  /** Waits for a container with its workspace. @param ms the longest wait @throws {ToolError} errors of the start or restore */
  ready(ms?: number): Promise<unknown>;
  /**
   * As `ready`, unless the run is over. @throws {ToolError} `sandbox_restarted` if it is; errors of the start; errors of the
   * SDK
   */
  readyForRun(isOver: () => boolean): Promise<void>;
}

/**
 * How long to retry while sandboxd does not respond, such as during its restart, and the pause between attempts, in
 * milliseconds.
 */
export const CONNECT_MS = 10_000;
export const RETRY_MS = 50;
const READY_MS = 40_000;

export type Requesting = <T>(
  path: string,
  init: RequestInit,
  signal: AbortSignal,
  read: (response: Response) => Promise<T>,
) => Promise<T>;

export class Requests {
  readonly #sandboxd: Sandboxd;

  constructor(sandboxd: Sandboxd) {
    this.#sandboxd = sandboxd;
  }

  /**
   * Like `request`, but counts as use, and waits for the container and its workspace. @throws {ToolError} errors of the start
   * too; errors of the SDK
   */
  withWorkspace(lifecycle: Pick<ContainerLifecycle, "container" | "ready">): Requesting {
    return async (...request) => {
      while (!lifecycle.container) await lifecycle.ready(READY_MS);
      return await this.request(...request, () => {
        this.#sandboxd.used();
        return lifecycle.container !== undefined;
      });
    };
  }

  /**
   * Makes a request, even before the workspace is restored, and reads the response. Retries if sandboxd does not respond,
   * unless the body is a stream, which can be sent only once. @param isThere whether the intended container still exists;
   * called before each attempt @throws {ToolError} `no_answer` if nothing responds, `sandbox_restarted`, errors of `read`
   */
  async request<T>(
    path: string,
    init: RequestInit,
    signal: AbortSignal,
    read: (response: Response) => Promise<T>,
    isThere: () => boolean = () => this.#sandboxd.isRunning,
  ): Promise<T> {
    const isStream = init.body instanceof ReadableStream;
    // sandboxd must respond before a stream is sent, because a stream cannot be repeated.
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
        // The container may be stopping. The actor checks for a while, and reports a broken connection otherwise.
        if (isStream || !isThere()) throw containerGone();
        // It worked on the request for this long before it ended: sandboxd is restarting.
        if (Date.now() - sentAt >= CONNECT_MS) deadline = Date.now() + CONNECT_MS;
        if (Date.now() >= deadline) throw sandboxUnresponsive(Date.now() - startedAt);
        await pause(RETRY_MS);
      }
    }
  }
}
