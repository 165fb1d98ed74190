import { type Duplex } from "node:stream";
import { chmodSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { log } from "./log.ts";
import { messageOf } from "./errors.ts";

/** Joins two connections both ways; either side may end its half first. A failure of one ends the other. */
export function splice(left: Duplex, right: Duplex): void {
  left.pipe(right);
  right.pipe(left);
  for (const [one, other] of [
    [left, right],
    [right, left],
  ] as const) {
    one.on("error", () => other.destroy());
    one.on("close", () => {
      // After an orderly end both have finished by themselves; otherwise the half that is left has no peer.
      if (!one.readableEnded || !one.writableFinished) other.destroy();
    });
  }
}

/** Where the `*.internal` hosts of /etc/hosts lead: a loopback address that leaves port 80 of 127.0.0.1 to the user. */
export const INTERNAL_ADDRESS = "127.0.0.2";

/** The sandbox's way out: listeners whose connections are handed, byte for byte, to the engine's socket. */
const EGRESS = [
  // What HTTP_PROXY points to.
  { host: "127.0.0.1", port: 3128 },
  { host: INTERNAL_ADDRESS, port: 80 },
];

/** Starts the forwarders. A port that cannot be had is reported and left out; the sandbox works without. */
export async function forwardEgress(egressSocket: string): Promise<void> {
  for (const where of EGRESS) {
    try {
      await forwardTo(egressSocket, where);
    } catch (error) {
      log(`no way out on port ${where.port}: ${messageOf(error)}`);
    }
  }
}

/** Listens on a loopback address and joins every connection to a new one to the engine's socket. */
export async function forwardTo(
  egressSocket: string,
  where: { host: string; port: number },
): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    forward(client, egressSocket);
  });
  await listen(server, where);
  return server;
}

function forward(client: Socket, egressSocket: string): void {
  client.on("error", () => {});
  const engine = connect({ path: egressSocket, allowHalfOpen: true });
  engine.once("error", () => client.destroy());
  client.once("close", () => engine.destroy());
  engine.once("connect", () => splice(client, engine));
}

export function listen(
  server: Server,
  where: { host: string; port: number } | { path: string },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(where, () => {
      server.off("error", reject);
      server.on("error", (error) => log(`listener: ${messageOf(error)}`));
      if ("path" in where) chmodSync(where.path, 0o600);
      resolve();
    });
  });
}
