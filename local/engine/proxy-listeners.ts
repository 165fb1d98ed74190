/** Accepts the connections of a sandbox to its proxy. */
import type { Server } from "node:http";
import { createServer, type Server as ListeningServer, type Socket } from "node:net";

/** The most connections of a sandbox to the proxy. Each takes up to two of the file descriptors that all sandboxes share. */
const maxConnections = 256;

/**
 * Serves the sandbox's listeners. Returns a function that closes the listeners and every connection. If only the listeners were
 * closed, the tunnel of a disconnected client would stay open until the host closes it.
 */
export function serveListeners(server: Server, listeners: readonly ListeningServer[]): () => void {
  // Node tracks connections, for `headersTimeout` and `closeAllConnections`, only after this event. The server itself does not
  // listen.
  server.emit("listening");
  const open = new Set<Socket>();
  const servers = listeners.map((listener) => {
    const accepting = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      if (open.size >= maxConnections) return void socket.destroy();
      open.add(socket);
      socket.once("close", () => open.delete(socket)).on("error", () => undefined);
      server.emit("connection", socket);
    }).listen(listener);
    // Node closes further connections before it creates their sockets, which takes most of the time.
    accepting.maxConnections = maxConnections;
    return accepting;
  });
  return () => {
    for (const listener of servers) listener.close();
    // Ends the timer of `headersTimeout`.
    server.close();
    for (const socket of open) socket.destroy();
  };
}
