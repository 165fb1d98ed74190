/**
 * A client for `bench/figures/proxy.ts`, which runs it on the host and in a sandbox. Downloads a number of bytes over each of
 * several connections at once, and prints the seconds from the first connection to the last byte. With a proxy, `plain` sends
 * requests to the proxy, and `tunnel` uses CONNECT.
 *
 *     node proxied-client.ts <connections> <bytes> <host:port of the server> plain|tunnel [<host:port of the proxy>]
 */
import { once } from "node:events";
import { type Socket, connect } from "node:net";

const [connections = "", bytes = "", origin = "", kind = "", proxy = origin] = process.argv.slice(2);
const isProxied = proxy !== origin;

async function openSocket(): Promise<Socket> {
  const at = proxy.lastIndexOf(":");
  const socket = connect(Number(proxy.slice(at + 1)), proxy.slice(0, at));
  if (kind !== "tunnel" || !isProxied) return socket;
  socket.write(`CONNECT ${origin} HTTP/1.1\r\nHost: ${origin}\r\n\r\n`);
  const [head]: Buffer[] = await once(socket, "data");
  if (!head?.toString().startsWith("HTTP/1.1 200")) throw new Error(`the proxy responded with ${head}`);
  return socket;
}

async function download(): Promise<void> {
  const socket = await openSocket();
  const path = kind === "tunnel" || !isProxied ? `/${bytes}` : `http://${origin}/${bytes}`;
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${origin}\r\nConnection: close\r\n\r\n`);
  let received = 0;
  socket.on("data", (piece) => (received += piece.length));
  await once(socket, "close");
  if (received < Number(bytes)) throw new Error(`${received} bytes arrived`);
}

const start = performance.now();
await Promise.all(Array.from({ length: Number(connections) }, download));
console.log((performance.now() - start) / 1000);
