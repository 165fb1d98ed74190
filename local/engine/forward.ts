/** Forwards requests of the Worker to a port inside a sandbox, WebSocket upgrades included, all unbuffered. */
import { Agent, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { ERROR_HEADER, HOST_HEADER, SECRET_HEADER, type EngineErrorCode } from "../platform/protocol.ts";
import { join } from "./egress.ts";
import { endToEndHeaders, passOn } from "./outbound.ts";
import { readHead } from "./upstream.ts";

/** The port on which the SDK expects the control server. */
const controlPort = 3000;
const ours = new Set([SECRET_HEADER, HOST_HEADER, "host"]);

export class PortForwarder {
  readonly #connect: () => Socket;
  readonly #agent: Agent;

  /** @param connect Opens a connection to the sandbox's control server. */
  constructor(connect: () => Socket) {
    this.#connect = connect;
    this.#agent = new Agent({ keepAlive: true });
    this.#agent.createConnection = connect;
  }

  /** @param path Path and query as the server in the sandbox is to see them. */
  async request(
    port: number,
    path: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const fail = () => {
      if (response.headersSent) response.destroy();
      else answerError(response, 502, "not-listening", `nothing accepts connections on port ${port}`);
    };
    let socket: Socket | undefined;
    try {
      // The control server is asked all the time, through kept connections; other ports get one per request.
      if (port !== controlPort) socket = await this.#open(port);
    } catch {
      return fail();
    }
    const kept = socket;
    const upstream = httpRequest({
      ...(kept === undefined ? { agent: this.#agent } : { createConnection: () => kept }),
      method: request.method,
      path,
      headers: forwardedHeaders(request, new Set()).flat(),
    });
    // A socket on which a tunnel was negotiated is paused.
    upstream.on("socket", (connected) => connected.resume());
    upstream.on("response", (incoming) => {
      if (passOn(incoming, response)) return;
      upstream.destroy();
      fail();
    });
    upstream.on("error", fail);
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  }

  async upgrade(
    port: number,
    path: string,
    request: IncomingMessage,
    client: Duplex,
    head: Buffer,
  ): Promise<void> {
    client.on("error", () => undefined);
    try {
      const upstream = await this.#open(port);
      const headers = forwardedHeaders(request, new Set(["connection", "upgrade"]));
      const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join("");
      upstream.write(`${request.method} ${path} HTTP/1.1\r\n${lines}\r\n`);
      if (head.length > 0) upstream.write(head);
      join(client, upstream);
    } catch {
      client.end(
        `HTTP/1.1 502 Bad Gateway\r\n${ERROR_HEADER}: not-listening\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
      );
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  /** A raw connection to a port in the sandbox. The control server tunnels to every port but its own. */
  async #open(port: number): Promise<Socket> {
    const socket = this.#connect();
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    socket.on("error", () => undefined);
    if (port === controlPort) return socket;
    socket.write(
      `GET /port/${port} HTTP/1.1\r\nHost: sandbox\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`,
    );
    const { status, rest } = await readHead(socket);
    if (status !== 101) {
      socket.destroy();
      throw new Error(`no tunnel to port ${port}: ${status}`);
    }
    if (rest.length > 0) socket.unshift(rest);
    return socket;
  }
}

function forwardedHeaders(request: IncomingMessage, keep: ReadonlySet<string>): [string, string][] {
  const given = request.headers[HOST_HEADER];
  const host: [string, string] = ["Host", typeof given === "string" ? given : "localhost"];
  const kept = endToEndHeaders(request.rawHeaders, keep).filter(([name]) => !ours.has(name.toLowerCase()));
  return [host, ...kept];
}

/** An answer of the engine's own. */
export function answerError(
  response: ServerResponse,
  status: number,
  code: EngineErrorCode,
  text: string,
): void {
  response.writeHead(status, { [ERROR_HEADER]: code, "content-type": "text/plain; charset=utf-8" });
  response.end(text);
}
