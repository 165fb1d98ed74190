/**
 * A sandbox's request to the internet ends in a plain `fetch` of the Worker. Locally, this `fetch` could reach the machine's
 * loopback and private network. So the engine sends the request, under the sandbox's own rules. If an allowed host has no
 * handler, the SDK itself calls `fetch`. So this file marks requests of sandboxes, and replaces `fetch` with a function that checks
 * for the mark.
 */
import { encodingFor, setInternet } from "../../src/container/internet.ts";
import { EngineClient, type LocalEnv } from "./engine-client.ts";
import { SENT_SECRET_HEADER, URL_HEADER } from "./engine-protocol.ts";

const marks = new WeakMap<Request, { env: LocalEnv; actor: string }>();

export function markSandboxRequest(request: Request, env: LocalEnv, actor: string): Request {
  marks.set(request, { env, actor });
  return request;
}

/** Makes the engine send sandboxes' requests to the internet. Call it once, before any request. */
export function useEngine(localEnv: (env: unknown) => LocalEnv): void {
  setInternet((request, { env, containerID, secret, signal }) =>
    sendByEngine(request, localEnv(env), containerID, { secret, signal }),
  );
  const plain = globalThis.fetch;
  globalThis.fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const mark = input instanceof Request ? marks.get(input) : undefined;
    if (mark === undefined || !(input instanceof Request)) return await plain(input, init);
    return await sendByEngine(new Request(input, init), mark.env, mark.actor);
  };
}

async function sendByEngine(
  request: Request,
  env: LocalEnv,
  actor: string,
  { secret, signal = request.signal }: { secret?: string | undefined; signal?: AbortSignal } = {},
): Promise<Response> {
  const { method, body } = request;
  const headers = new Headers(request.headers);
  headers.set(URL_HEADER, request.url);
  headers.delete(SENT_SECRET_HEADER);
  if (secret !== undefined) headers.set(SENT_SECRET_HEADER, secret);
  const encodeResponseBody = encodingFor(secret);
  const init: RequestInit = {
    method,
    headers,
    signal,
    encodeResponseBody,
    ...(body === null ? {} : { body }),
  };
  return await new EngineClient(env).fetch(`/actors/${actor}/internet`, init);
}
