/** Forwards the Worker's requests to a sandbox's port, including WebSocket upgrades, without buffering. */
import {
  Agent,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
  type ServerResponse,
} from "node:http";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { PREVIEW_PORT, SANDBOXD_PORT } from "../../container/sandboxd/protocol.ts";
import {
  ERROR_HEADER,
  HOST_HEADER,
  SECRET_HEADER,
  type EngineErrorCode,
} from "../platform/engine-protocol.ts";
import {
  closeAtEnd,
  endToEndHeaders,
  framingHeaders,
  onUnexpectedResponse,
  streamResponse,
} from "./outbound-queue.ts";
import type { RunningProcess } from "./launch.ts";
import { endStalled } from "./request-ends.ts";
import { closeSignal } from "./upstream.ts";
import { REQUEST_PROBLEMS } from "./texts.ts";
import { passWebSocket } from "./web-socket.ts";

const controlPort = 3000;
/** The ports that the Worker can reach. sandboxd passes requests to previews on to other ports. */
const PORTS = [controlPort, SANDBOXD_PORT];
const ours = new Set([SECRET_HEADER, HOST_HEADER, "host"]);
/** The most open requests and WebSockets of a sandbox. Each takes two of the file descriptors that all sandboxes share. */
const maxOpen = 256;
/** The most open requests and WebSockets of previews. Anybody can open previews, so the rest of `maxOpen` is reserved for the user. */
const maxPreviews = 192;
const headMs = 500;
/** How long a program may take to respond to the handshake of a WebSocket: a development server may compile first. */
const HANDSHAKE_MS = 60_000;
/**
 * How long a sandbox may take nothing more of a request's body. workerd cannot notice that a client has disconnected while it cannot pass
 * on what the client has sent. sandboxd itself reads an upload only after earlier ones to the same file.
 */
export const BODY_STALL_MS = 300_000;

export class PortForwarder {
  readonly #connect: RunningProcess["connect"];
  readonly #agents = new Map<number, Agent>();
  #open = 0;
  readonly #previews = new Set<ServerResponse | Duplex>();
  #arePreviewsEnded = false;

  constructor(connect: RunningProcess["connect"]) {
    this.#connect = connect;
    for (const port of PORTS) {
      const agent = new Agent({ keepAlive: true });
      // The agent passes on all options of the request except `signal`.
      agent.createConnection = ({ aborted }: RequestOptions & { aborted?: AbortSignal }, settle) => {
        this.#dial(port, aborted).then(
          (socket) => settle?.(null, socket),
          (error: Error) => settle?.(error, new Socket()),
        );
        return undefined;
      };
      this.#agents.set(port, agent);
    }
  }

  async request(
    port: number,
    path: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const fail = () => {
      if (response.headersSent) response.destroy();
      else sendError(response, 502, "not-listening", REQUEST_PROBLEMS.notListening(port));
    };
    if (!this.#reserve(request, response))
      return sendError(response, 503, "failed", REQUEST_PROBLEMS.tooMany(maxOpen));
    const options: RequestOptions & { aborted: AbortSignal } = {
      // The control server and sandboxd are called often, so their connections are kept.
      agent: this.#agents.get(port),
      aborted: closeSignal(response),
      method: request.method,
      path,
      headers: [...forwardedHeaders(request), ...framingHeaders(request)].flat(),
    };
    const upstream = httpRequest(options);
    const refuseResponse = () => {
      upstream.destroy();
      fail();
    };
    upstream.on("socket", (connected) => {
      connected.off("data", endUnasked);
      upstream.once("close", () => void connected.on("data", endUnasked));
    });
    upstream.on("response", (incoming) => {
      if (!upstream.destroyed && !streamResponse(incoming, response)) refuseResponse();
    });
    onUnexpectedResponse(upstream, refuseResponse);
    upstream.on("error", fail);
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
    endStalled(request, response, BODY_STALL_MS, refuseResponse);
    // The headers wait for the body's first piece, but at most `headMs`: a server drops a connection that is silent for seconds.
    const flushTimer = setTimeout(() => upstream.flushHeaders(), headMs);
    for (const event of ["data", "end", "close"]) request.once(event, () => clearTimeout(flushTimer));
  }

  async upgrade(
    port: number,
    path: string,
    request: IncomingMessage,
    client: Duplex,
    head: Buffer,
  ): Promise<void> {
    client.on("error", () => undefined);
    const isWebSocket = request.headers.upgrade?.toLowerCase() === "websocket";
    if (!isWebSocket || !this.#reserve(request, client))
      return refuseUpgrade(client, "503 Service Unavailable", "failed");
    closeAtEnd(client);
    try {
      const upstream = await this.#dial(port, closeSignal(client));
      const timer = setTimeout(() => upstream.destroy(), HANDSHAKE_MS);
      upstream.once("close", () => clearTimeout(timer));
      passWebSocket({
        request,
        client,
        head,
        upstream,
        path,
        headers: forwardedHeaders(request),
        // With compression, a short message could expand to megabytes in the Worker.
        allowsExtensions: false,
        onResponse: () => clearTimeout(timer),
        onFailure: () => client.destroy(),
      });
    } catch {
      refuseUpgrade(client, "502 Bad Gateway", "not-listening");
    }
  }

  /** Ends all previews and refuses new ones, so that they do not slow down the last saves. */
  endPreviews(): void {
    this.#arePreviewsEnded = true;
    for (const client of this.#previews) client.destroy();
  }

  close(): void {
    for (const agent of this.#agents.values()) agent.destroy();
  }

  #reserve(request: IncomingMessage, client: ServerResponse | Duplex): boolean {
    // It may have disconnected while the sandbox was starting. Then it is not closed again.
    if (client.destroyed || this.#open >= maxOpen) return false;
    if (isPreview(request)) {
      if (this.#previews.size >= maxPreviews || this.#arePreviewsEnded) return false;
      this.#previews.add(client);
    }
    this.#open += 1;
    client.once("close", () => {
      this.#open -= 1;
      this.#previews.delete(client);
    });
    return true;
  }

  async #dial(port: number, aborted?: AbortSignal): Promise<Socket> {
    const socket = await this.#connect(port === SANDBOXD_PORT ? "sandboxd" : "control", aborted);
    return socket.on("error", () => undefined);
  }
}

export function isReachable(port: number): boolean {
  return PORTS.includes(port);
}

/** Ends a kept connection that sends bytes without a request. Node would read and drop any number of them. */
function endUnasked(this: Socket): void {
  this.destroy();
}

function isPreview({ headers }: IncomingMessage): boolean {
  return headers[PREVIEW_PORT] !== undefined;
}

export function refuseUpgrade(client: Duplex, status: string, code: EngineErrorCode): void {
  client.end(
    `HTTP/1.1 ${status}\r\n${ERROR_HEADER}: ${code}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
  );
}

function forwardedHeaders(request: IncomingMessage): [string, string][] {
  const requestedHost = request.headers[HOST_HEADER];
  const host: [string, string] = ["Host", typeof requestedHost === "string" ? requestedHost : "localhost"];
  const otherHeaders = endToEndHeaders(request.rawHeaders).filter(([name]) => !ours.has(name.toLowerCase()));
  return [host, ...otherHeaders];
}

export function sendError(
  response: ServerResponse,
  status: number,
  code: EngineErrorCode,
  text: string,
): void {
  response.writeHead(status, { [ERROR_HEADER]: code, "content-type": "text/plain; charset=utf-8" });
  response.end(text);
}
