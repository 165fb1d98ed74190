/** Accepts the connections of a sandbox to its proxy. */
import type { Server } from "node:http";
import { createServer, type Server as ListeningServer, type Socket } from "node:net";

/** The most connections of a sandbox to the proxy. Each takes up to two of the file descriptors that all sandboxes share. */
const maxConnections = 256;

/** The event of the proxy's server for a new connection. The connection is paused, and has no HTTP parser yet. */
export const ACCEPTED = "accepted";

/**
 * Serves the sandbox's listeners. Returns a function that closes the listeners and every connection. If only the listeners were
 * closed, the tunnel of a disconnected client would stay open until the host closes it.
 */
export function serveListeners(server: Server, listeners: readonly ListeningServer[]): () => void {
  // Node tracks connections, for `headersTimeout` and `closeAllConnections`, only after this event. The server itself does not
  // listen.
  server.emit("listening");
  const open = new Set<Socket>();
  // Node reads from a paused connection until its buffer is full. With a buffer of one byte, it stops after one read.
  const options = { allowHalfOpen: true, noDelay: true, highWaterMark: 1, pauseOnConnect: true };
  const servers = listeners.map((listener) => {
    const accepting = createServer(options, (socket) => {
      if (open.size >= maxConnections) return void socket.destroy();
      open.add(socket);
      socket.once("close", () => open.delete(socket)).on("error", () => undefined);
      server.emit(ACCEPTED, socket);
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
