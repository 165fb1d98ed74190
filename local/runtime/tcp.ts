import { type Duplex } from "node:stream";
import { chmodSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { log } from "./stderr-log.ts";
import { messageOf } from "./sdk-errors.ts";

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

/** The sandbox's way out: what HTTP_PROXY points to, and where the hosts of /etc/hosts lead. */
const EGRESS = [
  { host: "127.0.0.1", port: 3128 },
  { host: INTERNAL_ADDRESS, port: 80 },
];

/**
 * Opens the listeners of the way out and hands them to the engine, by the channel that Node has between a process and its
 * child. The engine takes their connections itself, so that nothing in the sandbox has to pass bytes on. Returns when the
 * engine has closed the channel, before any code of a user's can run.
 */
export async function handOverEgress(): Promise<void> {
  const closed = new Promise((resolve) => process.once("disconnect", resolve));
  const servers: Server[] = [];
  for (const where of EGRESS) {
    const server = createServer();
    servers.push(server);
    await listen(server, where);
    process.send?.(where.port, server);
  }
  await closed;
  // This process would take some of the connections as long as it listens as well.
  for (const server of servers) server.close();
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
