/** Accepts the connections of a sandbox to its proxy. */
import type { Server } from "node:http";
import { createServer, type Server as ListeningServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { PerPrincipal } from "../../src/shared/per-principal.ts";

/** The most connections of a sandbox to the proxy. Each takes up to two of the file descriptors that all sandboxes share. */
const maxConnections = 256;
/** The most connections of all sandboxes of a principal. */
const maxTogether = 2 * maxConnections;
/** The connections that a sandbox may have even if others of its principal use all of `maxTogether`. */
const ownConnections = 32;

const openTogether = new PerPrincipal(
  () => new Set<Socket>(),
  (open) => open.size === 0,
);

/** The event of the proxy's server for a new connection. The connection is paused, and has no HTTP parser yet. */
export const ACCEPTED = "accepted";

/**
 * Serves the sandbox's listeners. Returns a function that closes the listeners and every connection. If only the listeners were
 * closed, the tunnel of a disconnected client would stay open until the host closes it.
 * @param principal returns whose sandboxes share a limit; undefined before the sandbox is assigned
 */
export function serveListeners(
  server: Server,
  listeners: readonly ListeningServer[],
  principal: () => string | undefined = () => undefined,
): () => void {
  // Node tracks connections, for `headersTimeout` and `closeAllConnections`, only after this event. The server itself does not
  // listen.
  server.emit("listening");
  const open = new Set<Socket>();
  // Node reads from a paused connection until its buffer is full. With a buffer of one byte, it stops after one read.
  const options = { allowHalfOpen: true, noDelay: true, highWaterMark: 1, pauseOnConnect: true };
  const servers = listeners.map((listener) => {
    const accepting = createServer(options, (socket) => {
      const id = principal();
      const together = id === undefined ? open : openTogether.of(id);
      const isCrowded = open.size >= ownConnections && together.size >= maxTogether;
      if (open.size >= maxConnections || isCrowded) return void socket.destroy();
      for (const counted of [open, together]) {
        counted.add(socket);
        socket.once("close", () => counted.delete(socket));
      }
      socket.on("error", () => undefined);
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

/** How often the proxy looks whether a program has reset a connection from which the proxy does not read, in milliseconds. */
const RESET_CHECK_MS = 1000;

/**
 * Node notices that a program has reset its connection only when it reads or writes. While a host does not take what the program has
 * sent, the proxy does not read, so the connection would stay open for as long as the host likes. Writing nothing fails after a reset.
 * @param socket not one over TLS: there it would write to the connection below, and Node can fail
 */
export function noticeReset(socket: Duplex): void {
  const check = setInterval(() => {
    if (socket.isPaused() && socket.writable && socket.writableLength === 0) socket.write("");
  }, RESET_CHECK_MS).unref();
  socket.once("close", () => clearInterval(check));
}
