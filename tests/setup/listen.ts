import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, type AddressInfo, type Server, type Socket } from "node:net";

/** Makes a server listen on a free port of loopback, and returns the port. */
export async function listen(server: Server): Promise<number> {
  await once(server.listen(0, "127.0.0.1"), "listening");
  return (server.address() as AddressInfo).port;
}

/** Connects to a port of this machine. */
export async function connectTo(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  return socket;
}

const ESTABLISHED = "01";

/** Counts the open connections to a port of loopback. */
export function countConnections(port: number): number {
  const remote = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const lines = readFileSync("/proc/net/tcp", "utf8").split("\n");
  return lines.filter((line) => {
    const [, , to, state] = line.trim().split(/\s+/);
    return state === ESTABLISHED && to?.endsWith(remote);
  }).length;
}
