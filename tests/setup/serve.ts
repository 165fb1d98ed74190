import { createServer, type RequestListener } from "node:http";
import { doLater } from "./end-later.ts";
import { listen } from "./listen.ts";

/** Serves HTTP on loopback, until the time that `doLater` chooses. Returns the URL of this path. */
export async function serve(respond: RequestListener, path = ""): Promise<string> {
  const server = createServer(respond);
  doLater(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${await listen(server)}${path}`;
}
