/** The connections of the Worker and of programs to the engine, and how they end. Requests of different principals use one connection in turn. */
import { once } from "node:events";
import { createServer as createHTTPServer } from "node:http";
import { createServer } from "node:net";
import { text } from "node:stream/consumers";
import { expect, it } from "vitest";
import { PREVIEW_PORT, SANDBOXD_PORT } from "../../container/sandboxd/protocol.ts";
import { PortForwarder } from "../../local/engine/forward.ts";
import { ABANDONED_HEADER, frame, SECRET_HEADER, URL_HEADER } from "../../local/platform/engine-protocol.ts";
import { startProxy, testEgress, upstreamTo } from "../setup/egress.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { connectTo, listen } from "../setup/listen.ts";
import { until } from "../setup/until.ts";

const BODY = Buffer.alloc(4_000_000);

/** Responds without reading the rest of a request. */
const refuser = createServer((socket) => {
  socket.on("error", () => undefined);
  socket.once("data", () => socket.pause().write("HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nhi"));
});
const allowAddresses = [`refuser.test:80=${await listen(endLater(refuser))}`];
const engine = endLater(await startTestEngine({ allowAddresses }));
const intercepts = { http: ["api.internal"], https: [] };
const sandbox = await TestSandbox.start(engine, { intercepts });

/** The Worker's response to an intercepted request. */
const SERVED = Buffer.concat([frame(Buffer.from("served")), frame()]);

it("the engine serves another principal's request after a host has responded without reading the earlier one", async () => {
  const { host, port } = new URL(engine.url);
  const send = (line: string, ...headers: string[]) =>
    [`${line} HTTP/1.1`, `Host: ${host}`, `${SECRET_HEADER}: ${engine.secret}`, ...headers, "", ""].join(
      "\r\n",
    );
  const target = `${URL_HEADER}: http://refuser.test/`;
  const socket = await connectTo(Number(port));
  socket.write(send(`POST /actors/${sandbox.id}/internet`, target, `Content-Length: ${BODY.length}`));
  socket.write(BODY);
  socket.write(send("GET /boot", "Connection: close"));
  expect(await text(socket)).toMatch(/^HTTP\/1.1 413 Large[^]*\{"boot":/);
});

it("the engine reports to the Worker which requests to end, because their programs have disconnected", async () => {
  const left = sandbox.run("curl -sS -m 1 http://api.internal/");
  const { number } = await sandbox.takeOutbound();
  const poll = await sandbox.call("GET", "/outbound");
  expect([poll.status, poll.headers.get(ABANDONED_HEADER)]).toEqual([204, String(number)]);
  await left;
  expect((await sandbox.respond(number, 502, SERVED)).status).toBe(410);
});

/** The engine before a program that listens at this port in sandboxd's place. It does not listen yet. */
function forwardTo(port: number) {
  const forwarder = new PortForwarder(() => connectTo(port));
  const server = createHTTPServer((...call) => void forwarder.request(SANDBOXD_PORT, "/", ...call));
  return server.on("upgrade", (...call) => void forwarder.upgrade(SANDBOXD_PORT, "/", ...call));
}

it("the engine closes a kept connection on which sandboxd sends bytes without a request", async () => {
  const responder = await startResponder("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  const url = `http://127.0.0.1:${await listen(endLater(forwardTo(responder.port)))}/`;
  for (let n = 0; n < 3; n++) expect((await fetch(url)).status).toBe(200);
  expect(responder.opened).toBe(1);
  responder.send("x");
  await until(() => responder.open === 0);
  expect((await fetch(url)).status).toBe(200);
});

const UPGRADE =
  "Host: host.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
  `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${Buffer.alloc(16).toString("base64")}\r\n\r\n`;
const AGREED = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const UNFINISHED = "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nhi";

/** Starts a server that responds so to each piece that it receives. `open` counts the connections, `received` the pieces. */
async function startResponder(response: string) {
  const state = { port: 0, received: 0, last: "", opened: 0, open: 0, send: (_bytes: string) => undefined };
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    state.send = (bytes) => void socket.write(bytes);
    state.opened++;
    state.open++;
    socket.on("close", () => state.open--);
    socket
      .on("error", () => undefined)
      .on("end", () => socket.end("the rest"))
      .on("data", (bytes) => {
        state.received++;
        state.last = String(bytes);
        socket.write(response);
      });
  });
  state.port = await listen(endLater(server));
  return state;
}

/** The engine between a client and sandboxd, and the proxy between a program and a host. */
const BETWEEN = {
  engine: (port: number) => ({
    server: forwardTo(port),
    request: `GET / HTTP/1.1\r\n${PREVIEW_PORT}: 8080\r\n`,
  }),
  proxy: (port: number) => ({
    server: testEgress({ upstream: upstreamTo({ "host.test:80": port }) }),
    request: "GET http://host.test/ HTTP/1.1\r\n",
  }),
};

it.each([
  ["engine", "has not responded", ""],
  ["engine", "has begun to refuse it", UNFINISHED],
  ["proxy", "has not responded", ""],
  ["proxy", "has begun to refuse it", UNFINISHED],
] as const)(
  "the %s ends the connection of a client that leaves before its WebSocket begins: the host %s",
  async (kind, _when, response) => {
    const responder = await startResponder(response);
    const { server, request } = BETWEEN[kind](responder.port);
    const client = await connectTo(await listen(endLater(server)));
    let received = "";
    client.on("error", () => undefined).on("data", (data) => (received += data));
    client.write(request + UPGRADE);
    await until(() => responder.received === 1 && received.endsWith(response.slice(-2)));
    client.end();
    await until(() => client.destroyed && responder.open === 0);
    expect(responder.opened).toBe(1);
  },
);

it.each([
  ["engine", false],
  ["proxy", true],
] as const)(
  "the %s joins the connections of a WebSocket; extensions and data after one direction's end pass: %s",
  async (kind, isPassed) => {
    const extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    const agreed = AGREED.replace("Upgrade\r\n", `Upgrade\r\n${extension}Sec-WebSocket-Protocol: chat\r\n`);
    const responder = await startResponder(agreed);
    const { server, request } = BETWEEN[kind](responder.port);
    const client = await connectTo(await listen(endLater(server)));
    let received = "";
    client.on("error", () => undefined).on("data", (data) => (received += data));
    client.write(`${request}${extension}Sec-WebSocket-Protocol: chat\r\n${UPGRADE}`);
    await until(() => received.endsWith("\r\n\r\n"));
    for (const head of [responder.last, received]) {
      expect(head).toContain("Sec-WebSocket-Protocol: chat");
      expect(head.includes("Sec-WebSocket-Extensions")).toBe(isPassed);
    }
    responder.send("to the client");
    await until(() => received.endsWith("to the client"));
    client.write("to the server");
    await until(() => responder.last === "to the server");
    client.end();
    await until(() => received.endsWith("the rest") === isPassed && responder.open === 0);
  },
);

it("a program that sends more to refused tunnels and WebSockets can still connect, however often it does so", async () => {
  const refusing = { allowed: false, reason: "it is off" } as const;
  const { port } = await startProxy({ internet: refusing, policy: { internet: "none", allowHosts: [] } });
  const send = async (request: string, more: string) => {
    const socket = await connectTo(port);
    socket.on("error", () => undefined).write(request);
    const [answer] = await once(socket, "data");
    socket.end(more);
    return String(answer);
  };
  for (let n = 0; n < 150; n++) {
    await send("CONNECT host.test:80 HTTP/1.1\r\nHost: x\r\n\r\n", "more");
    await send(`GET http://host.test/ HTTP/1.1\r\n${UPGRADE}`, "more");
  }
  expect(await send("GET http://host.test/ HTTP/1.1\r\nHost: x\r\n\r\n", "")).toContain("403");
});
