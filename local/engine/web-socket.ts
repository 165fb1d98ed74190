/** Passes on the handshake of a WebSocket, and then joins the two connections. The engine does not read the frames. */
import { request as httpRequest, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { splice } from "../../container/sandboxd/splice.ts";
import { declineUpgrade, endToEndHeaders } from "./outbound-queue.ts";
import { HOST_PROBLEMS } from "./texts.ts";

interface Handshake {
  request: IncomingMessage;
  client: Duplex;
  /** The bytes that the client sent after its request. */
  head: Buffer;
  upstream: Socket;
  path: string;
  headers: [string, string][];
  /** Whether the two ends may agree on extensions, such as compression. */
  allowsExtensions: boolean;
  /** Called before the client gets the response of the server. */
  onResponse: (status: number) => void;
  /** Called if the client has no response yet, and gets none of the server. `problem` takes the server's name. */
  onFailure: (problem: (host: string) => string) => void;
}

/** Sends the client's bytes only after the server has agreed. Before that, the bytes could be requests to any host. */
export function passWebSocket(handshake: Handshake): void {
  const { request, client, head, upstream, path, headers, allowsExtensions, onResponse, onFailure } =
    handshake;
  const isPassed = ([name]: [string, string]) =>
    allowsExtensions || name.toLowerCase() !== "sec-websocket-extensions";
  if (client.destroyed) return void upstream.destroy();
  const outgoing = httpRequest({
    createConnection: () => upstream,
    method: "GET",
    path,
    headers: [...headers.filter(isPassed).flat(), "Connection", "Upgrade", "Upgrade", "websocket"],
  });
  let hasResponse = false;
  let hasFailed = false;
  const fail = (problem: (host: string) => string) => {
    if (hasFailed) return;
    hasFailed = true;
    upstream.destroy();
    // The client already has the beginning of a response.
    if (hasResponse) client.destroy();
    else onFailure(problem);
  };
  const leave = () => void upstream.destroy();
  client.once("close", leave);
  outgoing.on("upgrade", (agreed, switched, first) => {
    if (agreed.headers.upgrade?.toLowerCase() !== "websocket") return fail(HOST_PROBLEMS.otherProtocol);
    hasResponse = true;
    onResponse(101);
    client.off("close", leave);
    const lines = endToEndHeaders(agreed.rawHeaders)
      .filter(isPassed)
      .map(([name, value]) => `${name}: ${value}\r\n`);
    const line = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    client.write(`${line}${lines.join("")}\r\n`, "latin1");
    if (first.length > 0) client.write(first);
    if (head.length > 0) switched.write(head);
    splice(client, switched);
  });
  outgoing.on("response", (declined) => {
    if (hasFailed) return;
    if (!declineUpgrade(declined, request, client)) return fail(HOST_PROBLEMS.notHTTP);
    hasResponse = true;
    onResponse(declined.statusCode ?? 502);
  });
  outgoing.on("error", () => fail(HOST_PROBLEMS.broke));
  // The connection through this machine's proxy is paused.
  upstream.resume();
  outgoing.end();
}
