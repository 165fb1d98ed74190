import { once } from "node:events";
import { chmodSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { ENGINE_ADDRESS } from "../../container/sandboxd/engine-link.ts";
import { log } from "./stderr-log.ts";
import { messageOf } from "../../src/shared/text.ts";

/** The address of intercepted hosts in /etc/hosts; port 80 of 127.0.0.1 stays free for the user. */
export const INTERNAL_ADDRESS = "127.0.0.2";

/** The first listener accepts the connections of the sandbox's own servers, the others accept outgoing requests. */
const LISTENERS = [ENGINE_ADDRESS, { host: "127.0.0.1", port: 3128 }, { host: INTERNAL_ADDRESS, port: 80 }];

/**
 * Hands listeners to the engine, over Node's channel to its parent. The engine accepts connections itself, so that
 * nothing in the sandbox copies bytes. Returns when the engine has closed the channel, before user code runs.
 */
export async function handOverListeners(): Promise<void> {
  const closed = new Promise((resolve) => process.once("disconnect", resolve));
  const servers: Server[] = [];
  for (const where of LISTENERS) {
    // sandboxd may connect before the engine accepts connections. Then it tries again.
    const server = createServer((socket) => socket.destroy());
    servers.push(server);
    await listen(server, where);
    process.send?.(where.port, server);
  }
  await closed;
  // If this process kept its copies open, it would receive some of the connections.
  for (const server of servers) server.close();
}

export async function listen(
  server: Server,
  where: { host: string; port: number } | { path: string },
): Promise<void> {
  await once(server.listen(where), "listening");
  server.on("error", (error) => log(`listener: ${messageOf(error)}`));
  if ("path" in where) chmodSync(where.path, 0o600);
}
