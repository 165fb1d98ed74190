/** The Worker's client of the engine. */
import { ERROR_HEADER, HOST_HEADER, SECRET_HEADER } from "./engine-protocol.ts";

/** What the local platform adds to the Worker's variables. */
export interface LocalEnv {
  LOCAL_ENGINE_URL: string;
  LOCAL_ENGINE_SECRET: string;
  /** The engine itself. Without it requests go by miniflare's Worker for outgoing requests, which copies bodies once more. */
  LOCAL_ENGINE?: Pick<Fetcher, "fetch">;
  /** The names of the Durable Objects whose sandboxes have a directory of the host, separated by commas. */
  LOCAL_DIRECTORIES?: string;
}

/** The message by which the SDK recognizes a port that nothing listens on yet, and tries again. */
export const notListening = "the container is not listening";

/** Attempts at a request that the engine does not accept, and the pause between them, milliseconds. */
const MAX_FAILURES = 5;
const RETRY_MS = 100;

export class EngineClient {
  readonly #url: string;
  readonly #secret: string;
  readonly #engine: Pick<Fetcher, "fetch">;

  constructor(env: LocalEnv) {
    this.#url = env.LOCAL_ENGINE_URL;
    this.#secret = env.LOCAL_ENGINE_SECRET;
    this.#engine = env.LOCAL_ENGINE ?? globalThis;
  }

  /**
   * A request to the engine. Redirects come back as they are: what runs in a sandbox must not be able to lead
   * the Worker, or the secret, to another address.
   */
  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set(SECRET_HEADER, this.#secret);
    return await this.#engine.fetch(this.#url + path, { ...init, headers, redirect: "manual" });
  }

  /**
   * A request that may be made twice, made again when its connection breaks: that says nothing of the sandbox. An engine
   * that is gone takes no new connection. @throws Error when it is
   */
  async requestWithRetry(path: string, init?: RequestInit): Promise<Response> {
    let failures = 0;
    for (;;) {
      const askedAt = Date.now();
      try {
        return await this.fetch(path, init);
      } catch (error) {
        failures = Date.now() - askedAt > RETRY_MS ? 1 : failures + 1;
        // One that answers is there, however often the connection of this request breaks.
        if (failures > MAX_FAILURES && (await this.#isReachable())) failures = 0;
        if (failures > MAX_FAILURES) throw error;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  async #isReachable(): Promise<boolean> {
    try {
      return (await this.fetch("/boot")).ok;
    } catch {
      return false;
    }
  }

  /** A JSON call, which may be made twice. @throws Error with the engine's words. */
  async call(method: string, path: string, body?: unknown): Promise<unknown> {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
    const response = await this.requestWithRetry(path, init);
    if (!response.ok) throw new Error(await response.text());
    return await response.json();
  }

  /** Forwards a request to a port of a sandbox, WebSocket upgrades included. @throws Error when nobody listens. */
  async forward(sandbox: string, port: number, request: Request): Promise<Response> {
    const url = new URL(request.url);
    const headers = new Headers(request.headers);
    headers.set(HOST_HEADER, url.host);
    const init: RequestInit = { method: request.method, headers, signal: request.signal };
    if (request.body !== null) init.body = request.body;
    const path = `/sandboxes/${sandbox}/ports/${port}${url.pathname}${url.search}`;
    const response = await this.fetch(path, init);
    const failure = response.headers.get(ERROR_HEADER);
    if (failure === null) return response;
    throw new Error(`${notListening} in the TCP address 10.0.0.1:${port} (${failure})`);
  }
}
