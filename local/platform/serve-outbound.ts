/** Serves the intercepted requests of one sandbox: takes them from the engine and gives them to their Fetchers. */
import { OUTBOUND_HEADER, type OutboundRequest, type OutboundResponse, frame } from "./engine-protocol.ts";
import type { EngineClient } from "./engine-client.ts";

/** The pause before the next poll of the engine after a failure, milliseconds. */
const RETRY_MS = 100;

/** Finds the Fetcher for the pattern that matched, null being the catch-all. */
export type FindFetcher = (pattern: string | null) => Fetcher | undefined;

/**
 * Runs until the sandbox is gone or `active` says no. The actor asks, rather than being called: a Fetcher
 * belongs to the actor that registered it, and nothing has to be reachable from outside.
 */
export async function serveOutbound(
  engine: EngineClient,
  sandbox: string,
  find: FindFetcher,
  active: () => boolean,
): Promise<void> {
  const taker = crypto.randomUUID();
  while (active()) {
    let poll: Response;
    try {
      poll = await engine.fetch(`/sandboxes/${sandbox}/outbound/${taker}`);
    } catch {
      // The connection broke. If the engine has gone, `active` answers false soon.
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      continue;
    }
    if (poll.status === 204) continue;
    const header = poll.headers.get(OUTBOUND_HEADER);
    if (poll.status !== 200 || header === null) return;
    // Not awaited, so that requests are answered concurrently.
    void respond(engine, sandbox, find, decode(header), poll).catch(() => undefined);
  }
}

async function respond(
  engine: EngineClient,
  sandbox: string,
  find: FindFetcher,
  outbound: OutboundRequest,
  poll: Response,
): Promise<void> {
  const { method, headers } = outbound;
  const closed = new AbortController();
  const init: RequestInit = { method, headers, redirect: "manual", signal: closed.signal };
  if (outbound.hasBody && poll.body !== null) init.body = poll.body;
  let response: Response;
  try {
    const fetcher = find(outbound.pattern);
    response =
      fetcher === undefined
        ? new Response("sandbox-mcp: this host is not intercepted any more.\n", { status: 502 })
        : await fetcher.fetch(new Request(outbound.url, init));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    response = new Response(`sandbox-mcp: the server could not answer this request (${reason}).\n`, {
      status: 502,
    });
  }
  const described: OutboundResponse = { status: response.status, headers: [...response.headers] };
  try {
    await engine.fetch(`/sandboxes/${sandbox}/outbound/${outbound.number}`, {
      method: "POST",
      headers: { [OUTBOUND_HEADER]: encode(described) },
      body: response.body?.pipeThrough(frames()) ?? frame(),
    });
  } finally {
    // When the process in the sandbox has hung up, so has the handler's client; else this is over anyway.
    closed.abort();
  }
}

/** Puts a body into frames. */
function frames(): TransformStream<Uint8Array, Uint8Array> {
  return new TransformStream({
    transform: (piece, controller) => {
      if (piece.byteLength > 0) controller.enqueue(frame(piece));
    },
    flush: (controller) => controller.enqueue(frame()),
  });
}

// Header values are bytes; the JSON goes as base64 of UTF-8.

function encode(value: OutboundResponse): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(JSON.stringify(value))));
}

function decode(text: string): OutboundRequest {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}
