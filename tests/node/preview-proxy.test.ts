import { once } from "node:events";
import { createServer, IncomingMessage, request, type Server } from "node:http";
import { Socket } from "node:net";
import { PassThrough } from "node:stream";
import { afterEach, expect, it, vi } from "vitest";
import { countOpenPreviews, passRequest, passUpgrade } from "../../container/sandboxd/preview-proxy.ts";
import { PREVIEW_ERROR, PREVIEW_RESPONSE_MS } from "../../container/sandboxd/protocol.ts";
import { listen } from "../setup/listen.ts";
import { until } from "../setup/until.ts";

const servers: Server[] = [];

async function serve(handler: Parameters<typeof createServer>[1]): Promise<number> {
  const server = createServer(handler);
  servers.push(server);
  return await listen(server);
}

/** A server that passes requests on to a program, and the number of its port. */
async function pass(program: number): Promise<number> {
  const port = await serve((incoming, response) => void passRequest(program, incoming, response));
  servers
    .at(-1)
    ?.on("upgrade", (incoming, client, head) => void passUpgrade(program, incoming, client, head));
  return port;
}

afterEach(() => {
  vi.useRealTimers();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

it("a program that begins no response occupies a preview's connection only as long as browsers wait", async () => {
  let [received, ended] = [0, 0];
  const program = await serve((incoming, response) => {
    incoming
      .on("data", () => received++)
      .on("end", () => ended++)
      .on("error", () => undefined);
    if (incoming.url === "/stream") response.write("begun");
  });
  const port = await pass(program);
  const upload = (path: string) => {
    const begun = request({ port, path, method: "POST" }).on("error", () => undefined);
    begun.write("a part");
    return begun;
  };
  const wait = async (isDone: () => boolean) => {
    while (!isDone()) await new Promise(setImmediate);
  };
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const hanging = once(request({ port, path: "/hang" }).end(), "response");
  const stalled = once(upload("/hang"), "response");
  const running = upload("/hang");
  const answered = upload("/stream");
  const [stream] = (await once(answered, "response")) as [IncomingMessage];
  let isStreamOver = false;
  stream.on("close", () => (isStreamOver = true)).on("error", () => undefined);
  await wait(() => received === 3 && ended === 1);
  vi.advanceTimersByTime(PREVIEW_RESPONSE_MS / 2);
  running.write("another part");
  answered.end();
  await wait(() => received === 4 && ended === 2);
  vi.advanceTimersByTime(PREVIEW_RESPONSE_MS / 2);
  for (const response of [hanging, stalled]) {
    const [refused] = (await response) as [IncomingMessage];
    expect(refused.statusCode).toBe(502);
    expect(refused.headers[PREVIEW_ERROR]).toBe("broken");
  }
  vi.advanceTimersByTime(PREVIEW_RESPONSE_MS / 2 - 1);
  vi.useRealTimers();
  await until(() => countOpenPreviews() === 2);
  expect(isStreamOver).toBe(false);
  running.destroy();
  stream.destroy();
  await until(() => countOpenPreviews() === 0);
});

it("a program that does not answer upgrades occupies connections only as long as browsers wait", async () => {
  let received = 0;
  const program = await serve(() => undefined);
  servers.at(-1)?.on("upgrade", ({ url }, socket) => {
    received++;
    socket.on("end", () => socket.end()).resume();
    if (url === "/answered")
      socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
  });
  const port = await pass(program);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const headers = { connection: "Upgrade", upgrade: "x" };
  const refused = once(request({ port, path: "/hang", headers }).end(), "error");
  const [, answered] = await once(request({ port, path: "/answered", headers }).end(), "upgrade");
  while (received < 2) await new Promise(setImmediate);
  vi.advanceTimersByTime(PREVIEW_RESPONSE_MS);
  expect(await refused).toMatchObject([{ code: "ECONNRESET" }]);
  vi.useRealTimers();
  await until(() => countOpenPreviews() === 1);
  expect(answered.destroyed).toBe(false);
  answered.destroy();
  await until(() => countOpenPreviews() === 0);
});

it("a visitor that disconnects before the program accepts its upgrade occupies no connection", async () => {
  const program = await serve(() => undefined);
  servers.at(-1)?.on("upgrade", (_request, socket) => {
    socket.on("error", () => undefined).write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
  });
  const incoming = new IncomingMessage(new Socket());
  const client = new PassThrough();
  const passing = passUpgrade(program, incoming, client, Buffer.alloc(0));
  client.destroy();
  await passing;
  expect(await until(() => countOpenPreviews() === 0)).toBe(true);
});
