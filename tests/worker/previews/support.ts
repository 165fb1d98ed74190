/** Servers in sandboxes, and visitors of their previews. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { Env } from "../../../src/shared/config.ts";
import worker from "../../../src/index.ts";
import { type Caller, owner, sh } from "../support.ts";

export const PREVIEW_HOST = "preview.example";

const bindings: Env = { ...(env as Env), LOG_LEVEL: "error", PREVIEW_HOST };

/** The owner, on a server with PREVIEW_HOST. */
export const exposer = owner.withVariables({ PREVIEW_HOST });

/** Sends a browser's request, without a token. */
export function visit(url: string | URL, init: RequestInit = {}, variables: Partial<Env> = {}) {
  return worker.fetch(new Request(url, init), { ...bindings, ...variables }, createExecutionContext());
}

/** The headers of a browser that requests a page. */
export const PAGE = { headers: { accept: "text/html,*/*" } };

/** Exposes a port. Returns its URL. */
export async function expose(args: Record<string, unknown>, caller: Caller = exposer): Promise<string> {
  const result = await caller.call("expose_port", args);
  if (result.isError) throw new Error(result.text);
  return String(result.structured.url);
}

/** A server that responds with a description of the request, and echoes WebSocket messages. */
const SERVER = `
const { WebSocketServer } = require("/opt/sandbox-runtime/node_modules/ws");
const { createHash } = require("crypto");
const port = Number(process.argv[2]);
const server = require("http").createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://x");
  if (pathname === "/stream") {
    response.write("begun");
    request.socket.on("close", () => console.log("stream closed"));
  } else if (pathname === "/upload") {
    const hash = createHash("sha256");
    request.on("data", (data) => hash.update(data)).on("end", () => response.end(hash.digest("hex")));
  } else if (pathname === "/headers") {
    for (const [name, value] of searchParams) response.appendHeader(name, value);
    response.end();
  } else if (pathname === "/status") {
    response.writeHead(Number(searchParams.get("is"))).end("body");
  } else if (pathname === "/line") {
    request.socket.write("HTTP/1.1 " + searchParams.get("is") + "\\r\\nConnection: upgrade\\r\\nUpgrade: other\\r\\n\\r\\n");
  } else if (pathname === "/redirect") {
    response.writeHead(302, { location: searchParams.get("to") }).end();
  } else if (pathname === "/gzip") {
    const body = require("zlib").gzipSync("a".repeat(100000));
    response.writeHead(200, { "content-encoding": "gzip", "content-length": body.length }).end(body);
  } else response.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers }));
});
new WebSocketServer({ server, handleProtocols: ([first]) => first !== "unknown" && first }).on("connection", (socket, request) => {
  socket.send(JSON.stringify(request.headers));
  socket.on("message", (data, binary) => socket.send(data, { binary }));
  socket.on("close", (code) => console.log("closed", code));
});
server.listen(port, process.argv[3], () => console.log("listening"));
`;

/** Starts a server in a sandbox. It listens on `port` of `address`, and prints to /workspace/<port>.log. */
export async function startServer(sandbox: string, port: number, address = "127.0.0.1"): Promise<void> {
  await owner.call("write_file", { sandbox, path: "server.js", content: SERVER });
  await sh(
    sandbox,
    // The restored workspace may have the log of an earlier container.
    `rm -f ${port}.log; node server.js ${port} ${address} >${port}.log 2>&1 & until grep -qs listening ${port}.log; do sleep 0.1; done`,
  );
}

/** The output of a server. */
export function outputOf(sandbox: string, port: number): Promise<string> {
  return sh(sandbox, `cat /workspace/${port}.log`);
}

/** Opens a WebSocket. Returns it and the server's first message. */
export async function openSocket(url: string, headers: Record<string, string> = {}) {
  const response = await visit(url, { headers: { upgrade: "websocket", ...headers } });
  const { webSocket: socket } = response;
  if (!socket) throw new Error(`no WebSocket: ${response.status}`);
  const greeting = nextMessage(socket);
  socket.accept();
  return { response, socket, greeting: await greeting };
}

/** The next message or the end of a WebSocket. */
export function nextMessage(socket: WebSocket): Promise<string> {
  return new Promise((resolve) => {
    socket.addEventListener("message", ({ data }) => resolve(String(data)), { once: true });
    socket.addEventListener("close", ({ code }) => resolve(`closed ${code}`), { once: true });
  });
}
