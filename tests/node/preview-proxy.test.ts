import { once } from "node:events";
import { createServer, type IncomingMessage, request, type Server } from "node:http";
import { afterEach, expect, it, vi } from "vitest";
import { countOpenPreviews, passRequest, RESPONSE_MS } from "../../container/sandboxd/preview-proxy.ts";
import { PREVIEW_ERROR } from "../../container/sandboxd/protocol.ts";
import { listen } from "../setup/listen.ts";
import { until } from "../setup/until.ts";

const servers: Server[] = [];

async function serve(handler: Parameters<typeof createServer>[1]): Promise<number> {
  const server = createServer(handler);
  servers.push(server);
  return await listen(server);
}

afterEach(() => {
  vi.useRealTimers();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

it("a program that begins no response occupies a preview's connection only as long as browsers wait", async () => {
  let received = 0;
  const program = await serve((incoming, response) => {
    received++;
    incoming.resume();
    if (incoming.url === "/stream") response.write("begun");
  });
  const port = await serve((incoming, response) => void passRequest(program, incoming, response));
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const hanging = once(request({ port, path: "/hang" }).end(), "response");
  const upload = request({ port, path: "/hang", method: "POST" }).on("error", () => undefined);
  upload.write("the first part");
  const [stream] = (await once(request({ port, path: "/stream" }).end(), "response")) as [IncomingMessage];
  let isStreamOver = false;
  stream.on("close", () => (isStreamOver = true)).on("error", () => undefined);
  while (received < 3) await new Promise(setImmediate);
  vi.advanceTimersByTime(RESPONSE_MS);
  const [refused] = (await hanging) as [IncomingMessage];
  expect(refused.statusCode).toBe(502);
  expect(refused.headers[PREVIEW_ERROR]).toBe("broken");
  vi.useRealTimers();
  await until(() => countOpenPreviews() === 2);
  expect(isStreamOver).toBe(false);
  upload.destroy();
  stream.destroy();
  await until(() => countOpenPreviews() === 0);
});
