/**
 * A request of a sandbox's that the SDK lets pass (an allowed host, no handler) ends in a plain `fetch` of the
 * Worker. On Cloudflare that is the internet; here workerd would reach this machine's loopback and private
 * network with it. So such a request is marked, and `fetch` sends marked ones through the engine, under the
 * sandbox's own rules.
 */
import { EngineClient, type LocalEnv } from "./client.ts";
import { URL_HEADER } from "./protocol.ts";

const marked = new WeakMap<Request, { env: LocalEnv; actor: string }>();

/** @param actor The Durable Object's id of the sandbox that the request came from. */
export function markSandboxRequest(request: Request, env: LocalEnv, actor: string): Request {
  marked.set(request, { env, actor });
  return request;
}

/** Makes `fetch` look for the mark. To be called once, before any request. */
export function guardFetch(): void {
  const plain = globalThis.fetch;
  globalThis.fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const mark = input instanceof Request ? marked.get(input) : undefined;
    if (mark === undefined || !(input instanceof Request)) return await plain(input, init);
    const request = new Request(input, init);
    const headers = new Headers(request.headers);
    headers.set(URL_HEADER, request.url);
    const forwarded: RequestInit = { method: request.method, headers };
    if (request.body !== null) forwarded.body = request.body;
    return await new EngineClient(mark.env).fetch(`/actors/${mark.actor}/internet`, forwarded);
  };
}
