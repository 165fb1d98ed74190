/** What the SDK gets if code has replaced a sandbox's control server. On Cloudflare, no engine limits the messages before. */
import { expect, it, vi } from "vitest";
import { limitMessages, limitRefusal } from "../../src/actors/platform/control-messages.ts";
import { CLOSE_MS } from "../../src/container/connection.ts";

const MIB = 1024 * 1024;

/** A connection between the Worker, which listens as the SDK does, and a control server. */
function connect(principal: string) {
  const { 0: worker, 1: server } = new WebSocketPair();
  const received = { characters: 0, closes: 0, aborts: 0 };
  limitMessages(worker, principal, () => void received.aborts++);
  worker.accept();
  server.accept();
  worker.addEventListener("message", ({ data }) => void (received.characters += String(data).length));
  worker.addEventListener("close", () => void received.closes++);
  return { worker, server, received };
}

/** Begins a call with a callback, as the SDK does. */
function begin(worker: WebSocket, number = 1) {
  worker.send('["push",["pipeline",0,["x"],[{"onStdout":["export",-1]}]]]');
  worker.send(`["pull",${number}]`);
}

/** A call of the callback. */
const call = (value: string) => `["push",["pipeline",-1,[],[${value}]]]`;
const output = (length: number) => call(`{"text":"${"x".repeat(length)}","timestamp":0}`);

it.each([
  ["long", () => output(13 * MIB)],
  ["of many values", () => `["push",["pipeline",-1,[],[[${"[],".repeat(MIB)}[]]]]]`],
  ["binary", () => new Uint8Array(10)],
])(
  "a connection ends with a message that is %s, and the SDK gets neither it nor a later one",
  async (name, message) => {
    const { worker, server, received } = connect(name);
    begin(worker);
    server.send(output(1000));
    await expect.poll(() => received.characters).toBe(output(1000).length);
    server.send(message());
    server.send(output(1000));
    await expect.poll(() => received.closes).toBeGreaterThan(0);
    expect(received.aborts).toBe(1);
    server.close();
    expect(received.characters).toBe(output(1000).length);
  },
);

it("the sandboxes of a principal have one limit, and those of others have their own", async () => {
  const connections = Array.from({ length: 6 }, () => connect("hostile"));
  for (const { worker, server } of connections) {
    begin(worker);
    server.send(output(8 * MIB));
  }
  const ended = () => connections.filter(({ received }) => received.closes > 0);
  await expect.poll(() => ended().length).toBeGreaterThan(2);
  const stored = connections.reduce((sum, { received }) => sum + received.characters, 0);
  expect(stored).toBeLessThan(33 * MIB);

  const neighbour = connect("neighbour");
  begin(neighbour.worker);
  neighbour.server.send(output(8 * MIB));
  await expect.poll(() => neighbour.received.characters).toBeGreaterThan(8 * MIB);
  for (const { server } of [neighbour, ...connections]) server.close();
});

it("what belongs to no call of the Worker counts until the connection ends", async () => {
  const { server, received } = connect("unasked");
  for (let sent = 0; sent < 5; sent++)
    server.send(`["push",["pipeline",0,["x"],["${"x".repeat(8 * MIB)}"]]]`);
  await expect.poll(() => received.closes).toBeGreaterThan(0);
  expect(received.characters).toBeLessThan(33 * MIB);
  server.close();
});

it("a closed connection occupies nothing, although its control server goes on sending", async () => {
  /** A connection whose control server does not confirm the close. */
  const hostile = Object.assign(new EventTarget(), { send() {}, close() {} }) as unknown as WebSocket;
  limitMessages(hostile, "closed", () => undefined);
  begin(hostile);
  let received = 0;
  hostile.addEventListener("message", () => void (received += 1));
  const receive = (data: string) => hostile.dispatchEvent(new MessageEvent("message", { data }));
  receive(output(8 * MIB));
  receive(output(7.9 * MIB));
  hostile.close();
  const other = connect("closed");
  begin(other.worker);
  for (let count = 0; count < 3; count++) other.server.send(output(9 * MIB));
  await expect.poll(() => other.received.characters).toBeGreaterThan(27 * MIB);
  receive(output(MIB));
  expect(received).toBe(2);
  other.server.close();
});

it("a closed connection is aborted, because its control server may not read or confirm the close", () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const socket = Object.assign(new EventTarget(), { send() {}, close() {}, readyState: WebSocket.CLOSED });
  const abort = vi.fn<() => void>();
  limitMessages(socket as unknown as WebSocket, "unconfirmed", abort);
  socket.close();
  expect(abort).not.toHaveBeenCalled();
  vi.advanceTimersByTime(CLOSE_MS);
  expect(abort).toHaveBeenCalledTimes(1);
});

it("a control server may send any amount if it responds and releases its calls, also late and with its own numbers", async () => {
  const { worker, server, received } = connect("printing");
  let sent = 0;
  for (let request = 1; request <= 8; request++) {
    begin(worker, request);
    // The Worker releases every other call before its result arrives.
    if (request % 2 === 0) worker.send(`["release",${request},1]`);
    const result = `["resolve",${request},"${"x".repeat(6 * MIB)}"]`;
    const messages = [output(6 * MIB), '["pull",1]', `["release",${request},1]`, '["release",-1,1]', result];
    for (const message of messages) {
      server.send(message);
      sent += message.length;
    }
    await expect.poll(() => received.characters + received.closes).toBe(sent);
    if (request % 2 === 1) worker.send(`["release",${request},1]`);
  }
  expect(received.closes).toBe(0);
  server.close();
});

it.each([
  ["the SDK's own", { code: "CONTAINER_UNAVAILABLE" }, true],
  ["a long one", ["x".repeat(5000)], false],
])("a refused connection has a body only if it is harmless: %s", async (_what, body, isKept) => {
  const response = await limitRefusal(Response.json(body, { status: 503 }));
  expect(response.status).toBe(503);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(await response.text()).toBe(isKept ? JSON.stringify(body) : "");
});
