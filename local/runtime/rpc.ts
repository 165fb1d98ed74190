import { RpcSession, type RpcTarget, type RpcTransport } from "capnweb";
import { type WebSocket } from "ws";
import { log } from "./stderr-log.ts";
import { messageOf } from "../../src/shared/text.ts";

export class WebSocketTransport implements RpcTransport {
  readonly #socket: WebSocket;
  readonly #received: string[] = [];
  #waiting: { resolve: (message: string) => void; reject: (error: Error) => void } | undefined;
  #closed: Error | undefined;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on("message", (data, isBinary) => {
      if (isBinary) return this.#close(new TypeError("Received non-string message from WebSocket."));
      const message = data.toString();
      if (!this.#waiting) this.#received.push(message);
      else {
        this.#waiting.resolve(message);
        this.#waiting = undefined;
      }
    });
    socket.on("close", (code, reason) =>
      this.#close(new Error(`Peer closed WebSocket: ${code} ${String(reason)}`)),
    );
    socket.on("error", (error) => this.#close(error));
  }

  async send(message: string): Promise<void> {
    this.#socket.send(message);
  }

  async receive(): Promise<string> {
    const message = this.#received.shift();
    if (message !== undefined) return message;
    if (this.#closed) throw this.#closed;
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }));
  }

  abort(reason: unknown): void {
    // The reason in a close frame has at most 123 bytes.
    this.#socket.close(3000, Buffer.from(messageOf(reason)).subarray(0, 120));
  }

  #close(error: Error): void {
    this.#closed ??= error;
    this.#waiting?.reject(this.#closed);
    this.#waiting = undefined;
  }
}

export function serveRPC(socket: WebSocket, api: RpcTarget): void {
  const session = new RpcSession(new WebSocketTransport(socket), api);
  session.getRemoteMain().onRpcBroken((error: unknown) => {
    if (!messageOf(error).startsWith("Peer closed")) log(`connection: ${messageOf(error)}`);
  });
}
