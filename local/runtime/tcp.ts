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
      // After an orderly end both are finished by themselves; a half that is left over has nobody to talk to.
      if (!one.readableEnded || !one.writableFinished) other.destroy();
    });
  }
}

/** The sandbox's way out: loopback ports whose connections are handed, byte for byte, to the engine's socket. */
const EGRESS_PORTS = [
  // What HTTP_PROXY points to.
  3128,
  // Where the `*.internal` hosts of /etc/hosts lead.
  80,
];

/** Starts the forwarders. A port that cannot be had is reported and left out; the sandbox works without. */
export async function forwardEgress(egressSocket: string): Promise<void> {
  for (const port of EGRESS_PORTS) {
    try {
      await forwardTo(egressSocket, port);
    } catch (error) {
      log(`no way out on port ${port}: ${messageOf(error)}`);
    }
  }
}

/** Listens on a loopback port and joins every connection to a new one to the engine's socket. */
export async function forwardTo(egressSocket: string, port: number): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    forward(client, egressSocket);
  });
  await listen(server, { host: "127.0.0.1", port });
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
