import { type Socket, connect } from "node:net";
import type { Duplex } from "node:stream";

/**
 * Connects two streams until both have ended. Either may end first: the data that it sent still reaches the other stream. An
 * error of one stream closes the other.
 */
export function splice(left: Duplex, right: Duplex): void {
  left.pipe(right);
  right.pipe(left);
  for (const [one, other] of [
    [left, right],
    [right, left],
  ] as const) {
    one.on("error", () => other.destroy());
    one.on("close", () => {
      if (!one.readableEnded || other.writableFinished) return other.destroy();
      other.once("finish", () => other.destroy());
      other.end();
    });
  }
}

/** Servers listen on all addresses or on one of these. */
const LOOPBACK = ["127.0.0.1", "::1"];

/** Connects to a port of this machine; undefined if nothing listens on it. */
export async function connectToPort(port: number): Promise<Socket | undefined> {
  for (const host of LOOPBACK) {
    const socket = connect({ host, port, noDelay: true, allowHalfOpen: true });
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    });
    if (isOpen) return socket.on("error", () => undefined);
  }
  return undefined;
}
