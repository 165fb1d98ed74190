/** Serves the intercepted requests of one sandbox: takes them from the engine and passes them to their Fetchers. */
import {
  ABANDONED_HEADER,
  OUTBOUND_HEADER,
  type OutboundRequest,
  type OutboundResponse,
  frame,
} from "./engine-protocol.ts";
import { changePieces } from "../../src/shared/stream-bytes.ts";
import { pause } from "../../src/shared/timers.ts";
import { messageOf } from "../../src/shared/text.ts";
import type { EngineClient } from "./engine-client.ts";

const RETRY_MS = 100;

/** Finds the Fetcher for a pattern of host names. */
type FindFetcher = (pattern: string) => Fetcher | undefined;

/** Runs until the sandbox is gone or `isActive` returns false. The actor polls, because only the actor can call its Fetchers. */
export async function serveOutbound(
  engine: EngineClient,
  sandbox: string,
  find: FindFetcher,
  isActive: () => boolean,
): Promise<void> {
  const handled = new Map<number, AbortController>();
  try {
    await serve(engine, sandbox, find, isActive, handled);
  } finally {
    // The sandbox is gone. Its requests would keep their turns, which requests of the next container need.
    for (const closed of handled.values()) closed.abort();
  }
}

/** @param handled the requests in progress by number; each ends when its controller aborts */
async function serve(
  engine: EngineClient,
  sandbox: string,
  find: FindFetcher,
  isActive: () => boolean,
  handled: Map<number, AbortController>,
): Promise<void> {
  const poller = crypto.randomUUID();
  while (isActive()) {
    let poll: Response;
    try {
      poll = await engine.fetch(`/sandboxes/${sandbox}/outbound/${poller}`);
    } catch {
      // The connection broke. If the engine is gone, `isActive` returns false soon.
      await pause(RETRY_MS);
      continue;
    }
    // There is no request. The engine lists the requests whose programs have disconnected.
    if (poll.status === 204) {
      const abandoned = poll.headers.get(ABANDONED_HEADER) ?? "";
      for (const number of abandoned.split(",")) handled.get(Number(number))?.abort();
      continue;
    }
    const header = poll.headers.get(OUTBOUND_HEADER);
    // The engine responds with 404 if the sandbox is gone.
    if (poll.status !== 200 || header === null) return;
    // Header values are bytes, so the JSON is sent as base64 of UTF-8.
    const description = new TextDecoder().decode(Uint8Array.fromBase64(header));
    const outbound = JSON.parse(description) as OutboundRequest;
    const closed = new AbortController();
    handled.set(outbound.number, closed);
    // Does not wait for the response, so that requests are handled concurrently.
    void respond(engine, sandbox, find, outbound, poll, closed)
      .catch(() => undefined)
      .finally(() => handled.delete(outbound.number));
  }
}

async function respond(
  engine: EngineClient,
  sandbox: string,
  find: FindFetcher,
  outbound: OutboundRequest,
  poll: Response,
  closed: AbortController,
): Promise<void> {
  const { method, headers } = outbound;
  const init: RequestInit = { method, headers, redirect: "manual", signal: closed.signal };
  // The program decodes the response, so its body must be as its headers say.
  const encodeResponseBody = "manual";
  if (outbound.hasBody && poll.body !== null) init.body = poll.body;
  let response: Response;
  try {
    const fetcher = find(outbound.pattern);
    response =
      fetcher === undefined
        ? new Response("sandbox-mcp: this host is not intercepted any more.\n", { status: 502 })
        : await fetcher.fetch(new Request(outbound.url, init), { encodeResponseBody });
  } catch (error) {
    const words = `sandbox-mcp: the server could not serve this request (${messageOf(error)}).\n`;
    response = new Response(words, { status: 502 });
  }
  const described: OutboundResponse = { status: response.status, headers: [...response.headers] };
  const header = new TextEncoder().encode(JSON.stringify(described)).toBase64();
  try {
    await engine.fetch(`/sandboxes/${sandbox}/outbound/${outbound.number}`, {
      method: "POST",
      headers: { [OUTBOUND_HEADER]: header },
      body: response.body === null ? frame() : changePieces(response.body, undefined, frame, frame).readable,
    });
  } finally {
    // Aborts the handler if the process in the sandbox has disconnected. In all other cases the handler has ended already.
    closed.abort();
  }
}
