/** The connections of the Worker and of programs to the engine, and how they end. Requests of different principals use one connection in turn. */
import { once } from "node:events";
import { createServer as createHTTPServer } from "node:http";
import { connect, createServer, type Socket } from "node:net";
import { connect as connectTLS } from "node:tls";
import { expect, it, onTestFinished, vi } from "vitest";
import { PREVIEW_PORT } from "../../container/sandboxd/protocol.ts";
import { connectBuffered, resetConnection } from "../../local/engine/buffered-socket.ts";
import { sendWithinPolicy } from "../../local/engine/egress.ts";
import { BODY_STALL_MS } from "../../local/engine/forward.ts";
import { InternetRequests, MAX_INTERNET_REQUESTS } from "../../local/engine/internet-requests.ts";
import {
  ABANDONED_HEADER,
  frame,
  OUTBOUND_HEADER,
  SECRET_HEADER,
  URL_HEADER,
} from "../../local/platform/engine-protocol.ts";
import { egressFor, startProxy, testEgress, upstreamTo } from "../setup/egress.ts";
import { endLater } from "../setup/end-later.ts";
import { outboundHead, startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { forwardTo } from "../setup/forwarder.ts";
import { connectTo, countConnections, listen } from "../setup/listen.ts";
import { sleep, until } from "../setup/until.ts";

const BODY = Buffer.alloc(4_000_000);

/** Responds without reading the rest of a request. */
const refuser = createServer((socket) => {
  socket.on("error", () => undefined);
  socket.once("data", () => socket.pause().write("HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nhi"));
});
const internet = createHTTPServer((request, response) =>
  request.resume().on("end", () => response.end("hello")),
);
const allowAddresses = [
  `refuser.test:80=${await listen(endLater(refuser))}`,
  `internet.test:80=${await listen(endLater(internet))}`,
];
const engine = endLater(await startTestEngine({ allowAddresses }));
const intercepts = { http: ["api.internal"], https: [] };
const sandbox = await TestSandbox.start(engine, { intercepts });

/** Sends a request, the pieces of its body, and then another principal's request. Returns everything that the engine sends. */
async function sendBefore(line: string, headers: string[], sendBody: (write: Write) => Promise<void> | void) {
  const { host, port } = new URL(engine.url);
  let received = "";
  const socket = connect(Number(port), "127.0.0.1");
  socket.on("data", (data) => (received += data)).on("error", () => undefined);
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  socket.on("close", () => resolve());
  const own = [`Host: ${host}`, `${SECRET_HEADER}: ${engine.secret}`];
  const head = (first: string, more: string[]) => `${[first, ...own, ...more].join("\r\n")}\r\n\r\n`;
  socket.write(head(line, headers));
  await sendBody((bytes) => socket.write(bytes));
  socket.write(head("GET /boot HTTP/1.1", ["Connection: close"]));
  await closed;
  return received;
}
type Write = (bytes: Buffer | string) => void;

/** The Worker's response to an intercepted request. */
const SERVED = Buffer.concat([frame(Buffer.from("served")), frame()]);

it("the engine continues to serve a connection after a host has responded without reading the request", async () => {
  const line = `POST /actors/${sandbox.id}/internet HTTP/1.1`;
  const headers = [`${URL_HEADER}: http://refuser.test/`, `Content-Length: ${BODY.length}`];
  expect(await sendBefore(line, headers, (write) => write(BODY))).toMatch(
    /^HTTP\/1.1 413 Large[^]*\{"boot":/,
  );
});

it("the engine closes a connection if a program in the sandbox disconnects in the middle of the response", async () => {
  const left = sandbox.run("curl -sSN http://api.internal/ | head -c 5");
  const { number } = await sandbox.takeOutbound();
  const line = `POST /sandboxes/${sandbox.id}/outbound/${number} HTTP/1.1`;
  const headers = [`${OUTBOUND_HEADER}: ${outboundHead(200)}`, "Transfer-Encoding: chunked"];
  const received = sendBefore(line, headers, async (write) => {
    const sendPiece = (bytes: Buffer) => {
      const body = frame(bytes);
      write(Buffer.concat([Buffer.from(`${body.length.toString(16)}\r\n`), body, Buffer.from("\r\n")]));
    };
    sendPiece(Buffer.from("first"));
    // The engine notices the program's disconnection only when it writes to the program.
    const more = setInterval(() => sendPiece(Buffer.alloc(100_000)), 5);
    await left;
    await sleep(500);
    clearInterval(more);
    write("0\r\n\r\n");
  });
  // The response is lost if more data arrives after the engine has closed the connection.
  expect(await received).toMatch(/^(HTTP\/1.1 502 |$)/);
});

it("the engine counts requests of disconnected programs until the Worker has ended its own requests for them", async () => {
  const numbers: number[] = [];
  const left = sandbox.run("for n in $(seq 16); do curl -sS -m 2 http://api.internal/ & done; wait");
  while (numbers.length < 16) numbers.push((await sandbox.takeOutbound()).number);
  // The engine reports to the Worker which requests to end.
  const abandoned: number[] = [];
  while (abandoned.length < 16) {
    const poll = await sandbox.call("GET", "/outbound");
    expect(poll.status).toBe(204);
    abandoned.push(...(poll.headers.get(ABANDONED_HEADER) ?? "").split(",").map(Number));
  }
  expect(abandoned.toSorted((a, b) => a - b)).toEqual(numbers);
  await left;
  const next = sandbox.run("curl -sS http://api.internal/next");
  let isTaken = false;
  const taken = sandbox.takeOutbound().finally(() => (isTaken = true));
  await sleep(500);
  expect(isTaken).toBe(false);
  for (const number of numbers) expect((await sandbox.respond(number, 502, SERVED)).status).toBe(410);
  await sandbox.respond((await taken).number, 200, SERVED);
  expect((await next).stdout).toBe("served");
});

it("the engine breaks off a request's body to the Worker when the program has received the response", async () => {
  const uploading = sandbox.run(
    "(echo first; sleep 1; echo second) | curl -sS -T . http://api.internal/; echo",
  );
  const { number, poll } = await sandbox.takeOutbound();
  await sandbox.respond(number, 413, SERVED);
  expect((await uploading).stdout).toBe("served");
  await expect(poll.text()).rejects.toThrow();
});

it("the engine ends a request of the Worker whose host stops reading, and waits for a host that has read everything", async () => {
  const stallMs = 100;
  const stalling = endLater(createServer({ pauseOnConnect: true }));
  const slow = createHTTPServer((request, response) =>
    request.resume().on("end", () => setTimeout(() => response.end("late"), 5 * stallMs)),
  );
  const ports = { "stalling.test:80": await listen(stalling), "slow.test:80": await listen(endLater(slow)) };
  const egress = egressFor({ upstream: upstreamTo(ports) });
  const requests = new InternetRequests(stallMs);
  const worker = createHTTPServer((request, response) => {
    expect(requests.add(request, response)).toBe(true);
    void sendWithinPolicy(egress, request, response, new URL(`http:/${request.url}`), []);
  });
  const port = await listen(endLater(worker));
  // Node resets the connection, because the engine has not read the whole body.
  const stalled = await connectTo(port);
  let isClosed = false;
  stalled.on("error", () => undefined).on("close", () => (isClosed = true));
  const length = 16_000_000;
  stalled.write(`POST /stalling.test/ HTTP/1.1\r\nHost: engine\r\nContent-Length: ${length}\r\n\r\n`);
  stalled.resume().write(Buffer.alloc(length));
  await until(() => isClosed);
  const late = await fetch(`http://127.0.0.1:${port}/slow.test/`, { method: "POST", body: "all of it" });
  expect(await late.text()).toBe("late");
});

it("a sandbox has a limited number of requests of the Worker to the internet, which end with it", async () => {
  const ending = await TestSandbox.start(engine);
  const { host, port } = new URL(engine.url);
  const head = [
    `POST /actors/${ending.id}/internet HTTP/1.1`,
    `Host: ${host}`,
    `${SECRET_HEADER}: ${engine.secret}`,
    `${URL_HEADER}: http://internet.test/`,
    "Content-Length: 2",
  ];
  let received = 0;
  const count = () => received++;
  internet.on("request", count);
  let open = 0;
  for (let index = 0; index < MAX_INTERNET_REQUESTS; index++) {
    open++;
    const socket = (await connectTo(Number(port))).on("error", () => undefined).resume();
    socket.on("close", () => open--).write(`${head.join("\r\n")}\r\n\r\nh`);
  }
  await until(() => received === MAX_INTERNET_REQUESTS);
  internet.off("request", count);
  const send = async (actor: string) => {
    const headers = { [SECRET_HEADER]: engine.secret, [URL_HEADER]: "http://internet.test/" };
    return (await fetch(`${engine.url}/actors/${actor}/internet`, { headers })).status;
  };
  expect(await send(ending.id)).toBe(503);
  expect(await send(sandbox.id)).toBe(200);
  expect(open).toBe(MAX_INTERNET_REQUESTS);
  await ending.destroy();
  await until(() => open === 0);
});

it("the engine closes a connection that sandboxd opens after the WebSocket's client has disconnected", async () => {
  const sandboxd = await startResponder("");
  const left = Promise.withResolvers<void>();
  const isAwaited = Promise.withResolvers<void>();
  const { engine: server } = forwardTo(async () => {
    isAwaited.resolve();
    await left.promise;
    return connectTo(sandboxd.port);
  });
  server.on("upgrade", (_request, socket) => socket.on("close", () => left.resolve()));
  const client = await connectTo(await listen(endLater(server)));
  client.write(`GET / HTTP/1.1\r\n${UPGRADE}`);
  await isAwaited.promise;
  client.resetAndDestroy();
  await until(() => sandboxd.opened === 1 && sandboxd.open === 0);
  expect(sandboxd.received).toBe(0);
});

it("the engine ends a request whose body the sandbox does not read, although its client has disconnected", async () => {
  const unread = await listen(endLater(createServer((socket) => void socket.pause())));
  const { dialed, engine: server } = forwardTo(() => connectTo(unread));
  const client = await connectTo(await listen(endLater(server)));
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  onTestFinished(() => void vi.useRealTimers());
  const untilSoon = async (condition: () => boolean) => {
    while (!condition()) await new Promise((resolve) => setImmediate(resolve));
  };
  client
    .on("error", () => undefined)
    .write("PUT / HTTP/1.1\r\nHost: host.test\r\nContent-Length: 100000000\r\n\r\n");
  client.end(Buffer.alloc(50_000_000));
  await untilSoon(() => dialed[0]?.writableNeedDrain === true && vi.getTimerCount() > 0);
  vi.advanceTimersByTime(BODY_STALL_MS - 1);
  expect(dialed[0]?.destroyed).toBe(false);
  vi.advanceTimersByTime(1);
  await untilSoon(() => dialed[0]?.destroyed === true);
});

const UPGRADE =
  "Host: host.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
  `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${Buffer.alloc(16).toString("base64")}\r\n\r\n`;
const AGREED = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const QUIET_STREAM = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";

/** Starts a server that responds so to each piece that it receives. `received` counts the pieces, and `open` the connections. */
async function startResponder(response: string) {
  const state = { port: 0, received: 0, opened: 0, open: 0 };
  const server = createServer((socket) => {
    state.opened++;
    state.open++;
    socket.on("close", () => state.open--);
    socket
      .on("error", () => undefined)
      .on("data", () => {
        state.received++;
        socket.write(response);
      });
  });
  state.port = await listen(endLater(server));
  return state;
}

/** The engine between a client and sandboxd, and the proxy between a program and a host. */
const BETWEEN = {
  engine: (port: number) => ({
    server: forwardTo(() => connectTo(port)).engine,
    request: `GET / HTTP/1.1\r\n${PREVIEW_PORT}: 8080\r\n`,
  }),
  proxy: (port: number) => ({
    server: testEgress({ upstream: upstreamTo({ "host.test:80": port }) }),
    request: "GET http://host.test/ HTTP/1.1\r\n",
  }),
};

it.each([
  ["engine", "there is no response", ""],
  ["engine", "the response is a stream", QUIET_STREAM],
  ["proxy", "there is no response", ""],
  ["proxy", "the response is a stream", QUIET_STREAM],
] as const)(
  "the %s closes the connection of a client that disconnects before its WebSocket begins: %s",
  async (kind, _when, response) => {
    const responder = await startResponder(response);
    const { server, request } = BETWEEN[kind](responder.port);
    let isClosed = false;
    server.on("upgrade", (_request, socket) => socket.on("close", () => (isClosed = true)));
    const client = await connectTo(await listen(endLater(server)));
    let received = "";
    client.on("error", () => undefined).on("data", (data) => (received += data));
    client.write(request + UPGRADE);
    await until(() => responder.received === 1);
    if (response !== "") await until(() => received.includes("hi"));
    expect(isClosed).toBe(false);
    client.end();
    await until(() => isClosed && responder.open === 0);
  },
);

const PROXY_UPGRADE =
  "GET http://host.test/ HTTP/1.1\r\nHost: host.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/** Starts a host that refuses WebSockets with these pieces of a response, one after another. Returns its port. */
async function startRefusing(pieces: readonly string[]): Promise<number> {
  const host = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", async () => {
      for (const piece of pieces) {
        socket.write(piece);
        await sleep(50);
      }
    });
  });
  return await listen(endLater(host));
}

/** Connects to a proxy that reaches this port as `host.test`. */
async function connectToProxy(host: number): Promise<Socket> {
  const { port } = await startProxy({ upstream: upstreamTo({ "host.test:80": host }) });
  return await connectTo(port);
}

it.each(["a host", "a preview's program"])(
  "a client gets the whole response of %s that refuses a WebSocket",
  async (who) => {
    const body = "x".repeat(BODY.length);
    const head = `HTTP/1.1 403 Forbidden\r\nContent-Length: ${body.length}\r\n\r\n`;
    const host = await startRefusing([head, "x", body.slice(1)]);
    const forwarder = forwardTo(() => connectTo(host));
    const isPreview = who !== "a host";
    const client = isPreview
      ? await connectTo(await listen(endLater(forwarder.engine)))
      : await connectToProxy(host);
    client.write(isPreview ? `GET / HTTP/1.1\r\n${PREVIEW_PORT}: 8080\r\n${UPGRADE}` : PROXY_UPGRADE);
    let received = 0;
    client.on("data", (bytes) => (received += bytes.length));
    await until(() => received > body.length, 10_000);
    expect(received).toBeGreaterThan(body.length);
  },
);

it.each(["destroy", "end"] as const)(
  "the proxy closes the connection to a host that refuses a WebSocket and then says nothing after the program's %s",
  async (leave) => {
    const host = await startRefusing(["HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\n"]);
    const client = await connectToProxy(host);
    client.on("error", () => undefined).write(`${PROXY_UPGRADE}more`);
    await once(client, "data");
    expect(countConnections(host)).toBe(1);
    client[leave]();
    await until(() => countConnections(host) === 0, 10_000);
    client.destroy();
    expect(countConnections(host)).toBe(0);
  },
);

it("the proxy passes on a host's data after a program has closed its direction of a WebSocket", async () => {
  const host = createServer({ allowHalfOpen: true }, (socket) => {
    socket.once("data", () => socket.write(AGREED)).on("end", () => socket.end("the rest"));
  });
  const proxy = testEgress({ upstream: upstreamTo({ "host.test:80": await listen(endLater(host)) }) });
  const program = connect({ port: await listen(endLater(proxy)), host: "127.0.0.1", allowHalfOpen: true });
  let received = "";
  program.on("data", (data) => (received += data));
  program.write(`GET http://host.test/ HTTP/1.1\r\n${UPGRADE}`);
  await until(() => received.includes("101"));
  program.end();
  await once(program, "end");
  expect(received).toMatch(/the rest$/);
});

it("the proxy closes a tunnel whose host has disconnected before the program's first message", async () => {
  const accepted = Promise.withResolvers<Socket>();
  const host = createServer((socket) => accepted.resolve(socket));
  const upstream = upstreamTo({ "host.test:443": await listen(endLater(host)) });
  const policy = { internet: "allowlist", allowHosts: ["host.test"] } as const;
  const proxy = testEgress({ upstream, policy });
  const socket = await connectTo(await listen(endLater(proxy)));
  let isClosed = false;
  socket.on("error", () => undefined).on("close", () => (isClosed = true));
  socket.write("CONNECT host.test:443 HTTP/1.1\r\nHost: host.test:443\r\n\r\n");
  expect(String(await once(socket, "data"))).toContain("200");
  (await accepted.promise).resetAndDestroy();
  // The proxy notices this only a moment later.
  await sleep(200);
  connectTLS({ socket, servername: "host.test" }).on("error", () => undefined);
  await until(() => isClosed);
});

it.each([
  ["the system has taken all of it", 2_000_000],
  ["the proxy waits for the host with the rest", 50_000_000],
])(
  "the proxy keeps no data for a host that does not read after the program has reset its tunnel: %s",
  async (_when, bytes) => {
    const sockets: Socket[] = [];
    const host = createServer((socket) => sockets.push(socket.pause().on("error", () => undefined)));
    const port = await listen(endLater(host));
    const proxy = endLater(testEgress({ upstream: upstreamTo({ "host.test:443": port }) }));
    const accepted: Socket[] = [];
    proxy.on("connection", (socket) => accepted.push(socket));
    const proxyPort = await listen(proxy);
    const count = 5;
    for (let index = 0; index < count; index++) {
      const socket = await connectTo(proxyPort);
      socket.on("error", () => undefined);
      socket.write("CONNECT host.test:443 HTTP/1.1\r\nHost: host.test:443\r\n\r\n");
      expect(String(await once(socket, "data"))).toContain("200");
      socket.write(Buffer.alloc(bytes));
      let pauses = 0;
      await until(() => {
        pauses = accepted[index]?.isPaused() === true ? pauses + 1 : 0;
        return socket.writableLength === 0 || pauses === 10;
      });
      socket.resetAndDestroy();
    }
    await until(() => sockets.length === count);
    await until(() => countConnections(port) === 0);
    expect(sockets).toHaveLength(count);
    for (const socket of sockets) socket.destroy();
  },
);

it("a connection to a host closes although the system is shutting it down", async () => {
  const host = createServer((socket) => void socket.resume().on("error", () => undefined));
  const connection = connectBuffered({ port: await listen(endLater(host)), host: "127.0.0.1" });
  await once(connection, "connect");
  connection.write("sent");
  let isClosed = false;
  connection.on("error", () => undefined).on("close", () => (isClosed = true));
  connection.end();
  resetConnection(connection);
  expect(await until(() => isClosed)).toBe(true);
});

it("a program that sends more to a refused tunnel can still connect, however often it does so", async () => {
  const refused = await TestSandbox.start(engine);
  const script = `import socket, time
def send(*parts):
    with socket.create_connection(("127.0.0.1", 3128)) as one:
        for part in parts:
            one.sendall(part)
            if len(parts) > 1: one.recv(12)
        if len(parts) == 1: return one.recv(12).decode()
upgrade = "GET http://127.0.0.1/ HTTP/1.1\\r\\nHost: x\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n"
for _ in range(150):
    for first in ("CONNECT 127.0.0.1:80 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", upgrade):
        # The proxy closes connections beyond its limit.
        try: send(first.encode(), b"more")
        except OSError: pass
until = time.monotonic() + 20
answer = ""
while answer == "" and time.monotonic() < until:
    try: answer = send(b"GET http://internet.test/ HTTP/1.1\\r\\nHost: internet.test\\r\\n\\r\\n")
    except OSError: time.sleep(0.1)
print(answer)`;
  expect(await refused.python(script)).toMatchObject({ stdout: "HTTP/1.1 200", stderr: "" });
  await refused.destroy();
});

it("a connection that sends only line ends is closed, and one that sends some before its request is served", async () => {
  const flooding = await TestSandbox.start(engine);
  const script = `import http.client, socket, time
def connect(): return socket.create_connection(("127.0.0.1", 3128))
with connect() as one:
    one.sendall(b"\\r\\n" * 1000 + b"GET http://internet.test/ HTTP/1.1\\r\\nHost: internet.test\\r\\n\\r\\n")
    print(one.recv(12).decode())
proxy = http.client.HTTPConnection("127.0.0.1", 3128)
for _ in range(20):
    proxy.request("POST", "http://internet.test/", b"x" * 300_000)
    assert proxy.getresponse().read() == b"hello"
flood = connect()
until = time.monotonic() + 10
try:
    while time.monotonic() < until: flood.sendall(b"\\r\\n" * 10_000)
except OSError: print("closed")`;
  expect(await flooding.python(script)).toMatchObject({ stdout: "HTTP/1.1 200\nclosed", stderr: "" });
  await flooding.destroy();
});
