import { connect, type Socket } from "node:net";

export async function connectToPort(port: number): Promise<Socket> {
  try {
    return await dial({ host: "127.0.0.1", port });
  } catch (error) {
    return dial({ host: "::1", port }).catch(() => {
      throw error;
    });
  }
}

function dial(where: { host: string; port: number }): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...where, allowHalfOpen: true, noDelay: true });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(socket);
    });
  });
}
