/** The rates of a sandbox's requests, and what responses with many header fields cost. */
import { once } from "node:events";
import { createServer as createHTTPServer, type ServerResponse } from "node:http";
import { connect, createServer } from "node:net";
import { PassThrough } from "node:stream";
import { expect, it, vi } from "vitest";
import { PREVIEW_PORT, SANDBOXD_PORT } from "../../container/sandboxd/protocol.ts";
import { PortForwarder } from "../../local/engine/forward.ts";
import { Pace } from "../../container/sandboxd/pace.ts";
import { Pieces } from "../../local/engine/piece-limit.ts";
import { endToEndHeaders } from "../../local/engine/outbound-queue.ts";
import { piecesOf, RequestLimiter, RequestPaces } from "../../local/engine/request-limiter.ts";
import { startProxy, testEgress, upstreamTo } from "../setup/egress.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { connectTo, listen } from "../setup/listen.ts";
import { sleep, until } from "../setup/until.ts";

const startLimiter = (together?: RequestPaces) => new RequestLimiter(createHTTPServer(), () => together);

/** Whether the next request must wait. */
async function isFull(limiter: RequestLimiter): Promise<boolean> {
  const client = new PassThrough();
  const waited = limiter.waitForRate(client, "direct");
  const isWaiting = await Promise.race([waited.then(() => false), sleep(50).then(() => true)]);
  client.destroy();
  await waited;
  return isWaiting;
}

/** Sends requests. */
function fill(limiter: RequestLimiter, requests: number, headers?: number): Promise<boolean>[] {
  return Array.from({ length: requests }, () => limiter.waitForRate(new PassThrough(), "direct", headers));
}

/** How long these requests take, in milliseconds. */
async function timeOf(limiters: RequestLimiter[], requests: number): Promise<number> {
  const startedAt = performance.now();
  await Promise.all(limiters.flatMap((limiter) => fill(limiter, requests)));
  return performance.now() - startedAt;
}

function fakeTime(): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  doLater(() => void vi.useRealTimers());
}

it("the requests of all sandboxes of a principal are limited together, and those of other principals are not", async () => {
  fakeTime();
  const together = new RequestPaces(2);
  const sandboxes = Array.from({ length: 4 }, () => startLimiter(together));
  const times = [timeOf(sandboxes, 600), timeOf([startLimiter(new RequestPaces(2))], 600)];
  await vi.advanceTimersByTimeAsync(10_000);
  const [time, timeOfOther] = await Promise.all(times);
  expect(time).toBeGreaterThan(800);
  expect(timeOfOther).toBeLessThan(500);
});

/** Opens connections that stay open. Returns how many of them the proxy serves. */
async function openConnections(port: number, count: number): Promise<number> {
  const served = Array.from({ length: count }, async () => {
    const client = connect(port, "127.0.0.1").on("error", () => undefined);
    doLater(() => client.destroy());
    client.write("GET / HTTP/1.1\r\n\r\n");
    const { promise, resolve } = Promise.withResolvers<boolean>();
    client.once("data", () => resolve(true)).once("close", () => resolve(false));
    return await promise;
  });
  return (await Promise.all(served)).filter(Boolean).length;
}

it("all sandboxes of a principal have a limited number of connections to the proxy, and each sandbox has some", async () => {
  const served: number[] = [];
  for (const principal of ["many", "many", "many", "other"]) {
    const { port } = await startProxy({}, principal);
    served.push(await openConnections(port, 250));
  }
  expect(served).toEqual([250, 250, 32, 250]);
});

it("the Connection header of a request names only a few headers", () => {
  const names = Array.from({ length: 1000 }, (_, number) => `x-header-${number}`);
  const fields = names.flatMap((name) => [name, "value"]);
  const left = endToEndHeaders(["Connection", names.join(", "), ...fields]).map(([name]) => name);
  expect(left).not.toContain("x-header-0");
  expect(left.length).toBeGreaterThan(900);
});

it("requests that wait in other sandboxes of a principal do not delay a sandbox", async () => {
  fakeTime();
  const together = new RequestPaces(2);
  const clients = Array.from({ length: 3 * 256 }, () => new PassThrough());
  const sandboxes = Array.from({ length: 3 }, () => startLimiter(together));
  for (const [n, client] of clients.entries()) void sandboxes[n % 3]?.waitForRate(client, "direct", 2000);
  const time = timeOf([startLimiter(together)], 1);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(await time).toBeLessThan(1000);
  for (const client of clients) client.destroy();
});

it("a request with hundreds of header fields counts as several", async () => {
  const limiter = startLimiter();
  fill(limiter, 80, 30);
  expect(await isFull(limiter)).toBe(false);
  fill(limiter, 80, 900);
  expect(await isFull(limiter)).toBe(true);
});

const INVALID = "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";

it.each([
  ["send an invalid request", INVALID],
  ["send nothing", ""],
])(
  "connections that %s are handled at a limited rate, and later ones get a response",
  async (_what, text) => {
    const { proxy, port } = await startProxy();
    let handled = 0;
    proxy.on("connection", () => handled++);
    const startedAt = performance.now();
    let left = 1500;
    const open = async () => {
      while (left-- > 0) {
        const client = connect(port, "127.0.0.1").on("error", () => undefined);
        client.once("connect", () => (text === "" ? client.destroy() : client.resume().write(text)));
        await new Promise<void>((resolve) => client.once("close", () => resolve()));
      }
    };
    await Promise.all(Array.from({ length: 100 }, open));
    const seconds = (performance.now() - startedAt) / 1000;
    expect(handled).toBeLessThan(1100 + 200 * seconds);
    // While 256 connections wait, further ones are closed.
    const request = () =>
      new Promise<string>((resolve) => {
        const client = connect(port, "127.0.0.1").on("error", () => undefined);
        client.once("data", (data) => (resolve(String(data)), client.destroy()));
        client.once("close", () => resolve("closed"));
        client.write("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
      });
    await expect.poll(request).toMatch(/^HTTP\/1.1 403/);
  },
);

it.each([
  ["to the proxy", "", "GET / HTTP/1.1\r\n\r\n"],
  ["behind one that waits", "GET http://host.test/ HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"],
  ["with a tunnel", "CONNECT host.test:80 HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"],
])("of thousands of pipelined requests %s, only a few are parsed", async (_what, first, text) => {
  const resolve = () => new Promise<string[]>(() => undefined);
  const policy = { internet: "allowlist" as const, allowHosts: ["host.test"] };
  const { proxy, port } = await startProxy({ upstream: { ...upstreamTo(), resolve }, policy });
  let parsed = 0;
  proxy.on("request", () => parsed++);
  const client = await connectTo(port);
  client.on("error", () => undefined).resume();
  client.write(first + text.repeat(3000));
  await until(() => parsed > 0);
  await sleep(500);
  expect(parsed).toBeLessThan(100);
});

it("a new connection is not read while its sandbox exceeds a limit", async () => {
  const pieces = new Pieces();
  const { proxy, port } = await startProxy({ pieces });
  pieces.take(0, 60_000);
  const accepted = once(proxy, "connection");
  const client = await connectTo(port);
  client.write("GET / HTTP/1.1\r\n\r\n");
  const [socket] = await accepted;
  await sleep(500);
  expect(socket.bytesRead).toBe(0);
  const [response] = await once(client, "data");
  expect(String(response)).toMatch(/^HTTP\/1.1 400/);
  client.destroy();
});

it("reads are split after at least 288 bytes, also if they consist of line ends, and after at most 16 requests", () => {
  const requests = "GET / HTTP/1.1\r\n\r\n".repeat(3640);
  for (const text of ["\r\n".repeat(32_768), requests, `${requests}GET`]) {
    const pieces = piecesOf(Buffer.from(text)).map(String);
    expect(pieces.join("")).toBe(text);
    expect(pieces.length).toBeLessThan(240);
    expect(Math.max(...pieces.map((piece) => piece.split("GET /").length - 1))).toBeLessThanOrEqual(16);
  }
  expect(String(piecesOf(Buffer.from(`${requests}GET`)).at(-1))).toBe("GET");
});

const fields = (count: number) => "a: b\r\n".repeat(count);
const OK = "HTTP/1.1 200 OK\r\n";
const UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

it.each([
  ["a usual head", `${OK}${fields(90)}Content-Length: 0\r\n\r\n`, false],
  ["a long head", `${OK}${fields(900)}Content-Length: 0\r\n\r\n`, true],
  ["trailers", `${OK}Transfer-Encoding: chunked\r\n\r\n0\r\n${fields(900)}\r\n`, true],
  ["the head of a WebSocket", `HTTP/1.1 101 Switching\r\n${UPGRADE}${fields(900)}\r\n`, true],
  ["the head of a refused WebSocket", `${OK}${fields(900)}Content-Length: 0\r\n\r\n`, true],
  ["an early hint", `HTTP/1.1 103 Early\r\n${fields(900)}\r\n${OK}Content-Length: 0\r\n\r\n`, true],
])("the header fields of a host's response count: %s", async (what, response, isCounted) => {
  const host = endLater(
    createServer((socket) =>
      socket.on("error", () => undefined).once("data", () => void socket.write(response)),
    ),
  );
  const upstream = upstreamTo({ "host.test:80": await listen(host) });
  const limit = (burst: number) => new Pieces({ pace: new Pace({ burst, perSecond: 1 }) });
  const [reads, pieces] = [limit(40), limit(1000)];
  const proxy = endLater(testEgress({ reads, pieces, upstream }));
  const client = await connectTo(await listen(proxy));
  doLater(() => client.destroy());
  const upgrade = what.includes("WebSocket") ? UPGRADE : "";
  client.write(`GET http://host.test/ HTTP/1.1\r\nHost: host.test\r\n${upgrade}\r\n`);
  const isPaused = () => reads.isPaused || pieces.isPaused;
  await until(() => isPaused() || (!isCounted && client.bytesRead > 0));
  expect(isPaused()).toBe(isCounted);
});

it.each([
  ["without a host", "GET / HTTP/1.1\r\n", 400],
  ["with another coding", "GET http://host.test/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n", 501],
  ["to another host in a tunnel", "GET http://other.test/ HTTP/1.1\r\n", 403],
])(
  "refused requests %s wait for the same rate as others, and their header fields count",
  async (what, head, status) => {
    const requests = new RequestPaces();
    const [rate] = requests.of("direct");
    const proxy = endLater(
      testEgress({ policy: { internet: "allowlist", allowHosts: ["host.test"] }, requests }),
    );
    const responses: ServerResponse[] = [];
    proxy.on("request", (_request, response) => responses.push(response));
    const port = await listen(proxy);
    const open = async () => {
      const client = await connectTo(port);
      doLater(() => client.destroy());
      if (!what.includes("tunnel")) return client;
      client.write("CONNECT host.test:80 HTTP/1.1\r\n\r\n");
      await once(client, "data");
      return client;
    };
    const clients = await Promise.all(Array.from({ length: 6 }, open));
    // No token comes back while the clock stands still.
    vi.useFakeTimers({ toFake: ["performance"] });
    doLater(() => void vi.useRealTimers());
    const [first, ...others] = clients;
    first?.write(`${head}${fields(900)}\r\n`);
    await until(() => responses[0]?.writableFinished);
    expect(responses[0]?.statusCode).toBe(status);
    // The first request took 18 of 1,000 tokens, and each tunnel one.
    expect(rate?.tryTake(1000 - 17)).toBe(false);
    rate?.take(1e6);
    for (const client of others) client.write(`${head}\r\n`);
    await until(() => responses.length === clients.length);
    // A response without a wait has been sent before this event.
    expect(responses.slice(1).filter(({ headersSent }) => headersSent)).toEqual([]);
  },
);

it.each(["header fields", "trailers"])(
  "responses of a preview with hundreds of %s are passed on at a limited rate",
  async (what) => {
    const many = Array.from({ length: 900 }, (): [string, string] => ["a", "b"]);
    const inside = endLater(
      createHTTPServer((_request, response) => {
        if (what === "header fields") return void response.writeHead(200, many.flat()).end();
        response.write("x");
        response.addTrailers(many);
        response.end();
      }),
    );
    const port = await listen(inside);
    const forwarder = new PortForwarder(
      () => connectTo(port),
      () => undefined,
    );
    doLater(() => forwarder.close());
    const engine = endLater(
      createHTTPServer((request, response) => void forwarder.request(SANDBOXD_PORT, "/", request, response)),
    );
    const url = `http://127.0.0.1:${await listen(engine)}/`;
    const startedAt = performance.now();
    for (let n = 0; n < 8; n++)
      await (await fetch(url, { headers: { [PREVIEW_PORT]: "8080" } })).arrayBuffer();
    expect(performance.now() - startedAt).toBeGreaterThan(1000);
  },
);
