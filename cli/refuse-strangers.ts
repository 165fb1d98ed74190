/**
 * Protects miniflare's own server, which listens on a random port of loopback. Every program of the machine can send requests to it,
 * and so can pages of previews in a browser. miniflare refuses requests without its secret, but fails for the path `//`, and if
 * the connection of a WebSocket breaks. Node would then end this process.
 */
import type * as HTTPModule from "node:http";
import { createRequire } from "node:module";
import type { Socket } from "node:net";

/** The header of workerd's requests to miniflare's own server, in lower case. */
const LOOPBACK_SECRET = "mf-loopback-secret";

/** Call it before miniflare starts. @returns to be called when miniflare has started its server */
export function refuseStrangers(): () => void {
  const http: typeof HTTPModule = createRequire(import.meta.url)("node:http");
  const { createServer } = http;
  const protectedServer = (...given: Parameters<typeof createServer>) => {
    const server = createServer(...given);
    server.on("connection", (socket: Socket) => socket.on("error", () => undefined));
    const emit = server.emit.bind(server);
    server.emit = (event: string, ...values: unknown[]) => {
      const [request] = values;
      if (!(request instanceof http.IncomingMessage) || isFromWorkerd(request)) return emit(event, ...values);
      request.socket.destroy();
      return true;
    };
    return server;
  };
  // miniflare reads this property when it starts its server. ES modules keep the original function.
  Object.assign(http, { createServer: protectedServer });
  process.off("unhandledRejection", throwOthers);
  process.on("unhandledRejection", throwOthers);
  return () => Object.assign(http, { createServer });
}

function throwOthers(error: unknown): void {
  const isOfMiniflare = error instanceof Error && /#(?:handleLoopback|writeResponse)/.test(error.stack ?? "");
  if (!isOfMiniflare) throw error;
}

function isFromWorkerd({ headers, url = "" }: HTTPModule.IncomingMessage): boolean {
  return headers[LOOPBACK_SECRET] !== undefined && URL.canParse(url, "http://localhost");
}
