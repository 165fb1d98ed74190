import { createServer, type Server } from "node:http";
import type { Socket } from "node:net";
import { SANDBOXD_PORT } from "../../container/sandboxd/protocol.ts";
import { PortForwarder } from "../../local/engine/forward.ts";

interface Forwarding {
  forwarder: PortForwarder;
  /** Connections into the sandbox. */
  dialed: Socket[];
  /** Passes requests and WebSockets to sandboxd's port, or to a preview if they have its header. It does not listen yet. */
  engine: Server;
}

/** A sandbox's forwarder without a sandbox. @param dial opens a connection to the program that acts as its server */
export function forwardTo(dial: () => Promise<Socket>): Forwarding {
  const dialed: Socket[] = [];
  const forwarder = new PortForwarder(async () => {
    const socket = await dial();
    dialed.push(socket);
    return socket;
  });
  const engine = createServer(
    (request, response) => void forwarder.request(SANDBOXD_PORT, "/", request, response),
  );
  engine.on("upgrade", (request, socket, head) =>
    forwarder.upgrade(SANDBOXD_PORT, "/", request, socket, head),
  );
  return { forwarder, dialed, engine };
}
