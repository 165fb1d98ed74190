import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** Tries IPv4 loopback, then IPv6. @throws the error of the first */
export async function connectToPort(port: number): Promise<Socket> {
  try {
    return await dial("127.0.0.1", port);
  } catch (error) {
    return await dial("::1", port).catch(() => {
      throw error;
    });
  }
}

async function dial(host: string, port: number): Promise<Socket> {
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
  await once(socket, "connect");
  return socket;
}
