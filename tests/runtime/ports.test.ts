import { once } from "node:events";
import { request } from "node:http";
import { createServer, type Server, type Socket } from "node:net";
import { listen } from "../../local/runtime/tcp.ts";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { get, REMOTE_URL, startRuntime, type Runtime } from "./runtime.ts";

let runtime: Runtime;
const servers: Server[] = [];

beforeAll(async () => {
  runtime = await startRuntime();
});
afterEach(async () => {
  for (const server of servers.splice(0)) server.close();
});
afterAll(() => runtime.stop());

async function serve(onConnection: (socket: Socket) => void, host = "127.0.0.1"): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, onConnection);
  servers.push(server);
  await listen(server, { host, port: 0 });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

describe("the HTTP side", () => {
  it.skipIf(REMOTE_URL)("says that it is ready, and nothing else", async () => {
    const socket = runtime.local?.socket ?? "";
    expect((await get(socket, "/")).status).toBe(200);
    expect(JSON.parse((await get(socket, "/health")).body)).toMatchObject({ status: "healthy" });
    expect((await get(socket, "/ping")).status).toBe(200);
    expect((await get(socket, "/elsewhere")).status).toBe(404);
  });
});

/** Upgrades to a raw connection to a port inside the sandbox. */
function tunnelTo(port: number): Promise<{ status: number; socket?: Socket }> {
  return new Promise((resolve, reject) => {
    const call = request({
      socketPath: runtime.local?.socket,
      path: `/port/${port}`,
      headers: { connection: "upgrade", upgrade: "tcp" },
    });
    call.once("error", reject);
    call.once("response", (response) => {
      response.resume();
      resolve({ status: response.statusCode ?? 0 });
    });
    call.once("upgrade", (response, socket, head) => {
      if (head.length > 0) socket.unshift(head);
      resolve({ status: response.statusCode ?? 0, socket: socket as Socket });
    });
    call.end();
  });
}

async function textOf(socket: Socket): Promise<string> {
  let text = "";
  for await (const chunk of socket.setEncoding("utf8")) text += String(chunk);
  return text;
}

describe.skipIf(REMOTE_URL)("a tunnel to a port", () => {
  it("carries bytes both ways and keeps a half-closed connection open", async () => {
    const port = await serve((socket) => {
      let received = "";
      socket.setEncoding("utf8").on("data", (chunk: string) => (received += chunk));
      // Answers only after the client has ended its half.
      socket.once("end", () => socket.end(`got ${received}`));
    });
    const { status, socket } = await tunnelTo(port);
    expect(status).toBe(101);
    socket?.end("all of it");
    expect(socket && (await textOf(socket))).toBe("got all of it");
  });

  it("holds a fast sender back while the receiver does not read", async () => {
    let sent = 0;
    const port = await serve((socket) => {
      const chunk = Buffer.alloc(64 * 1024, "x");
      const push = (): void => {
        while (sent < 64 * 1024 * 1024 && socket.writable) {
          sent += chunk.length;
          if (!socket.write(chunk)) return void socket.once("drain", push);
        }
        socket.end();
      };
      socket.on("error", () => {});
      push();
    });
    const { socket } = await tunnelTo(port);
    let last = -1;
    await expect
      .poll(
        () => {
          const still = sent === last && sent > 0;
          last = sent;
          return still;
        },
        { interval: 200 },
      )
      .toBe(true);
    expect(sent).toBeLessThan(32 * 1024 * 1024);
    expect(socket && (await textOf(socket)).length).toBe(64 * 1024 * 1024);
  });

  it("is refused where nobody listens", async () => {
    const port = await serve(() => {});
    const [server] = servers.splice(0);
    server?.close();
    if (server) await once(server, "close");
    expect((await tunnelTo(port)).status).toBe(502);
  });

  it("ends when the server drops the connection", async () => {
    // Not before it has heard something: a connection that is reset at once is no tunnel yet.
    const port = await serve((socket) => socket.once("data", () => socket.resetAndDestroy()));
    const { socket } = await tunnelTo(port);
    socket
      ?.on("error", () => {})
      .resume()
      .write("hello");
    if (socket && !socket.closed) await once(socket, "close");
    expect(socket?.destroyed).toBe(true);
  });
});
