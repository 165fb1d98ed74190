/** The Worker's client of the engine. */
import { pause } from "../../src/shared/timers.ts";
import { ERROR_HEADER, HOST_HEADER, SECRET_HEADER } from "./engine-protocol.ts";

export interface LocalEnv {
  LOCAL_ENGINE_URL: string;
  LOCAL_ENGINE_SECRET: string;
  /**
   * The binding to the engine. Without it, requests go through miniflare's Worker for outgoing requests, which makes another
   * copy of each body.
   */
  LOCAL_ENGINE?: Pick<Fetcher, "fetch">;
  LOCAL_DIRECTORIES?: string;
}

/** The SDK recognizes a port that is not open yet by this message, and retries. */
export const notListening = "the container is not listening";
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

  /** Follows no redirects: a sandbox must not lead the Worker, or the secret, to another address. */
  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set(SECRET_HEADER, this.#secret);
    return await this.#engine.fetch(this.#url + path, { ...init, headers, redirect: "manual" });
  }

  /** An idempotent request, retried if its connection breaks. @throws Error if the engine is gone */
  async requestWithRetry(path: string, init?: RequestInit): Promise<Response> {
    let failures = 0;
    for (;;) {
      const askedAt = Date.now();
      try {
        return await this.fetch(path, init);
      } catch (error) {
        // Failures count only in quick succession, and only if the engine responds to no other request.
        failures = Date.now() - askedAt > RETRY_MS ? 1 : failures + 1;
        if (failures > MAX_FAILURES && (await this.#isReachable())) failures = 0;
        if (failures > MAX_FAILURES) throw error;
        await pause(RETRY_MS);
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

  async call(method: string, path: string, body?: unknown): Promise<unknown> {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
    const response = await this.requestWithRetry(path, init);
    if (!response.ok) throw new Error(await response.text());
    return JSON.parse(await response.text());
  }

  /** Forwards a request to a sandbox's port, including WebSocket upgrades. @throws Error if nothing listens */
  async forward(sandbox: string, port: number, request: Request): Promise<Response> {
    const url = new URL(request.url);
    const headers = new Headers(request.headers);
    headers.set(HOST_HEADER, url.host);
    headers.set(SECRET_HEADER, this.#secret);
    const path = `/sandboxes/${sandbox}/ports/${port}${url.pathname}${url.search}`;
    // A copy of a request keeps its body even for the method GET, for which `RequestInit` allows none.
    const moved = new Request(this.#url + path, request);
    const { signal } = request;
    const response = await this.#engine.fetch(new Request(moved, { headers, signal, redirect: "manual" }));
    const failure = response.headers.get(ERROR_HEADER);
    if (failure === null) return response;
    // A program in the sandbox may have sent the header, and a body without end.
    void response.body?.cancel().catch(() => undefined);
    throw new Error(`${notListening} in the TCP address 10.0.0.1:${port} (${failure})`);
  }
}
