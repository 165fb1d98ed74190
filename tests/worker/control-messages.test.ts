/** What the SDK gets if code has replaced a sandbox's control server. On Cloudflare, no engine limits the messages before. */
import { expect, it, vi } from "vitest";
import { Pace } from "../../container/sandboxd/pace.ts";
import { CONTROL_PACE, limitMessages, limitRefusal } from "../../src/actors/platform/control-messages.ts";
import { CLOSE_MS } from "../../src/container/connection.ts";
import { SandboxPace } from "../../src/shared/sandbox-pace.ts";
import { sleep } from "../setup/until.ts";

const MIB = 1024 * 1024;

/** A connection between the Worker, which listens as the SDK does, and a control server. */
function connect(principal: string, pace = new Pace(CONTROL_PACE)) {
  const { 0: worker, 1: server } = new WebSocketPair();
  const received = { characters: 0, closes: [] as string[], aborts: 0 };
  limitMessages(worker, { principalID: principal, pace, abort: () => void received.aborts++ });
  worker.accept();
  server.accept();
  worker.addEventListener("message", ({ data }) => void (received.characters += String(data).length));
  worker.addEventListener("close", ({ reason }) => void received.closes.push(reason));
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

/** The SDK parses this text as JSON. */
const errorMessage = (kind: string, text: string) =>
  JSON.stringify([...(kind === "abort" ? ["abort"] : [kind, 1]), ["error", "Error", text]]);

it.each([
  ["long", "sent a message of more than", () => output(13 * MIB)],
  ["many values", "values", () => `["push",["pipeline",-1,[],[[${"[],".repeat(MIB)}[]]]]]`],
  ["binary", "binary", () => new Uint8Array(10)],
  ["unrequested", "without a request", () => '["resolve",7,1]'],
  ["a call to something other", "made a call to something other", () => '["push",["pipeline",0,["x"],[]]]'],
  ["a call inside of a call", "sent a pipeline", () => call('["pipeline",0,["onTunnelExit"],[]]')],
  ["a call inside of a result", "sent a pipeline", () => '["resolve",1,["pipeline",-1,[],[1]]]'],
  ["a callback in a result", "sent a import", () => '["resolve",1,["import",-1]]'],
  ["a call instead of an error", "sent a pipeline", () => '["abort",["pipeline",-1,[],[1]]]'],
  ["a stream", "not a message of the control protocol", () => '["stream",[["x"]]]'],
  ["a call of a stream", "sent a pipeline", () => '["stream",["pipeline",0,["write"],["x"]]]'],
  ["many references", "references", () => call(`[${Array(300).fill('["export",-1]').join(",")}]`)],
  ["a bigint", "sent a bigint", () => call('[["bigint","9"]]')],
  ["a writable", "sent a writable", () => call('[["writable",-1]]')],
  ["blanks", "never uses", () => '[ "push", 1 ]'],
  [
    "strings that slow the parser down",
    "texts of digits",
    () => `["push",["pipeline",-1,[],[${JSON.stringify(Array.from({ length: 101 }, () => "12345678"))}]]]`,
  ],
  ...["reject", "abort"].map((kind): [string, string, () => string] => [
    `strings that slow the parser of errors down, in ${kind}`,
    "texts of digits",
    () => errorMessage(kind, JSON.stringify(Array.from({ length: 101 }, () => "12345678"))),
  ]),
  ...["reject", "abort"].map((kind): [string, string, () => string] => [
    `a text that slows the SDK's regular expression down, in ${kind}`,
    "only the Worker's end",
    () => errorMessage(kind, `Peer closed WebSocket: ${"0".repeat(30_000)}\nx`),
  ]),
  ["a long error", "an error of more than", () => errorMessage("reject", `[${"[],".repeat(30_000)}[]]`)],
  ...Object.entries({
    "another kind": (text: string) => `["release","${text}"]`,
    "an unknown word": (text: string) => `["resolve",1,["zzz","${text}"]]`,
    "a word with another value": (text: string) => `["resolve",1,{"a":["date","${text}"]}]`,
    "an array that is not in another one": (text: string) => `["resolve",1,[["a"],"${text}"]]`,
    "arguments that are no array": (text: string) => `["push",["pipeline",-1,[],"${text}"]]`,
    "a value after the arguments": (text: string) => `["push",["pipeline",-1,[],[],"${text}"]]`,
    "a long path": (text: string) => `["push",["pipeline",-1,["${text}"],[]]]`,
    "an error in a result": (text: string) => `["resolve",1,["error","Error","${text}"]]`,
  }).map(([name, make]): [string, string, () => string] => [
    `a long message whose error would repeat it: ${name}`,
    "not a message of the control protocol",
    () => make("x".repeat(100_000)),
  ]),
  ["an escaped type", "never uses", () => String.raw`["resolve",1,["\u0062\u0069\u0067int","1"]]`],
])("a connection ends with the first message over a limit: %s", async (name, reason, message) => {
  const { worker, server, received } = connect(name);
  begin(worker);
  server.send(output(1000));
  await expect.poll(() => received.characters).toBe(output(1000).length);
  server.send(message());
  server.send(output(1000));
  await expect.poll(() => received.closes).toContainEqual(expect.stringContaining(reason));
  expect(received.aborts).toBe(1);
  server.close();
  await expect.poll(() => received.closes.length).toBeGreaterThan(0);
  expect(received.characters).toBe(output(1000).length);
});

it("a connection ends with too many calls that the sandbox does not release", async () => {
  const { worker, server, received } = connect("unreleased");
  begin(worker);
  server.send(call("1"));
  // A release with the count 0 has no effect in the Worker.
  server.send('["release",1,0]');
  for (let count = 1; count <= 4096; count++) server.send(call("1"));
  await expect.poll(() => received.closes).toContainEqual(expect.stringContaining("did not release them"));
  server.close();
});

it("a long message with arrays, objects and values that are not JSON arrives", async () => {
  const { worker, server, received } = connect("long");
  begin(worker);
  const value = `{"a":[[1,[[]],{"b":["undefined"]},["date",1.5e12]]],"c":"[\\"]","d":{"e":${JSON.stringify("x".repeat(100_000))}}}`;
  const messages = [
    `["push",["pipeline",-1,[],[${value},${value}]]]`,
    `["push",["pipeline",-1,["onEvent"],[${value}]]]`,
    `["resolve",1,${value}]`,
  ];
  for (const message of messages) server.send(message);
  const length = messages.reduce((sum, message) => sum + message.length, 0);
  await expect.poll(() => received.characters + received.closes.length).toBe(length);
  expect(received.closes).toEqual([]);
  server.close();
});

it("the sandboxes of a principal have one limit, and those of others have their own", async () => {
  const connections = Array.from({ length: 6 }, () => connect("hostile"));
  for (const { worker, server } of connections) {
    begin(worker);
    server.send(output(8 * MIB));
  }
  const ended = () => connections.filter(({ received }) => received.closes.length > 0);
  await expect.poll(() => ended().length).toBeGreaterThan(2);
  const stored = connections.reduce((sum, { received }) => sum + received.characters, 0);
  expect(stored).toBeLessThan(25 * MIB);

  const neighbour = connect("neighbour");
  begin(neighbour.worker);
  neighbour.server.send(output(8 * MIB));
  await expect.poll(() => neighbour.received.characters).toBeGreaterThan(8 * MIB);
  for (const { server } of [neighbour, ...connections]) server.close();
});

it("sandboxes that store as much as their principal may do not break another one", async () => {
  const greedy = Array.from({ length: 3 }, () => connect("both"));
  for (const { worker, server } of greedy) {
    begin(worker);
    for (let count = 0; count < 8; count++) server.send(output(0.95 * MIB));
  }
  const isDone = ({ characters, closes }: (typeof greedy)[number]["received"]) =>
    characters > 7.5 * MIB || closes.length > 0;
  await expect.poll(() => greedy.every(({ received }) => isDone(received))).toBe(true);
  const other = connect("both");
  begin(other.worker);
  other.server.send(output(1.3 * MIB));
  await expect.poll(() => other.received.characters + other.received.closes.length).toBeGreaterThan(0);
  expect(other.received.closes).toEqual([]);
  for (const { server } of [other, ...greedy]) server.close();
});

it.each([
  ["one letter", "\u0101"],
  ["an escape", String.raw`\u0101`],
])("text with %s that takes two bytes is counted as two bytes for each character", async (name, letter) => {
  const { worker, server, received } = connect(name);
  begin(worker);
  const wide = output(7 * MIB).replace("x", letter);
  server.send(wide);
  await expect.poll(() => received.characters).toBe(wide.length);
  server.send(wide);
  await expect.poll(() => received.closes.length).toBeGreaterThan(0);
  expect(received.characters).toBe(wide.length);
  server.close();
});

it("a closed connection occupies nothing, although its control server goes on sending", async () => {
  /** A connection whose control server does not confirm the close. */
  const hostile = Object.assign(new EventTarget(), { send() {}, close() {} }) as unknown as WebSocket;
  limitMessages(hostile, { principalID: "closed", pace: new Pace(CONTROL_PACE), abort: () => undefined });
  begin(hostile);
  let received = 0;
  hostile.addEventListener("message", () => void (received += 1));
  const receive = (data: string) => hostile.dispatchEvent(new MessageEvent("message", { data }));
  receive(output(8 * MIB));
  receive(output(7.9 * MIB));
  hostile.close();
  const other = connect("closed");
  begin(other.worker);
  for (let count = 0; count < 2; count++) other.server.send(output(7 * MIB));
  await expect.poll(() => other.received.characters).toBeGreaterThan(14 * MIB);
  receive(output(MIB));
  expect(received).toBe(2);
  other.server.close();
});

it("a closed connection is aborted, because its control server may not read or confirm the close", () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const socket = Object.assign(new EventTarget(), { send() {}, close() {}, readyState: WebSocket.CLOSED });
  const abort = vi.fn<() => void>();
  const pace = new Pace(CONTROL_PACE);
  limitMessages(socket as unknown as WebSocket, { principalID: "unconfirmed", pace, abort });
  socket.close();
  expect(abort).not.toHaveBeenCalled();
  vi.advanceTimersByTime(CLOSE_MS);
  expect(abort).toHaveBeenCalledTimes(1);
});

it("a list may begin with a control character", async () => {
  const { worker, server, received } = connect("escapes");
  begin(worker);
  server.send(`["resolve",1,[${JSON.stringify(["\u001b[1m", "\u0000"])}]]`);
  await expect.poll(() => received.characters + received.closes.length).toBeGreaterThan(1);
  expect(received.closes).toEqual([]);
  server.close();
});

it("a control server may send any amount if it responds and releases its calls", async () => {
  const { worker, server, received } = connect("printing");
  let sent = 0;
  for (let request = 1; request <= 5; request++) {
    begin(worker, request);
    for (const message of [output(6 * MIB), '["release",-1,1]', `["resolve",${request},1]`]) {
      server.send(message);
      sent += message.length;
    }
    await expect.poll(() => received.characters).toBe(sent);
    worker.send(`["release",${request},1]`);
  }
  expect(received.closes).toEqual([]);
  server.close();
});

it.each([
  // They have no effect, so no other limit applies to them.
  ["short messages", '["release",-1,0]', 20_000],
  ["messages of many values", `["push",["pipeline",-1,[],[[${"1,".repeat(9000)}1]]]]`, 10],
])(
  "a connection ends with a flood of %s, and so does the next one of the sandbox",
  async (name, message, most) => {
    const pace = new Pace(CONTROL_PACE);
    const flood = async () => {
      const { worker, server, received } = connect(name, pace);
      begin(worker);
      for (let sent = 0; sent < most; sent++) server.send(message);
      await expect.poll(() => received.closes).toContainEqual(expect.stringContaining("too many messages"));
      return received.characters / message.length;
    };
    const first = await flood();
    expect(first).toBeLessThan(most);
    expect(await flood()).toBeLessThan(first);
  },
);

it("ten flooding sandboxes of a principal send few messages, and do not break a sandbox with its part of them", () => {
  const paceOf = (principal: string) => new SandboxPace(CONTROL_PACE, () => principal);
  const floods = Array.from({ length: 10 }, () => paceOf("flood"));
  const quiet = paceOf("flood");
  expect(quiet.tryTake(1)).toBe(true);
  let sent = 0;
  for (let open = floods; open.length > 0;) {
    open = open.filter((pace) => pace.tryTake(1));
    sent += open.length;
  }
  // Each of them alone may send 5,000.
  expect(sent).toBeGreaterThan(9000);
  expect(sent).toBeLessThan(15_000);
  for (let n = 0; n < 500; n++) expect(quiet.tryTake(1)).toBe(true);
  expect(floods[0]?.isFull).toBe(false);
  expect(paceOf("another").tryTake(CONTROL_PACE.burst)).toBe(true);
});

it("sandboxes that have been quiet for a while do not make the parts of others smaller", async () => {
  const paceOf = () => new SandboxPace(CONTROL_PACE, () => "quiet");
  const floods = Array.from({ length: 3 }, paceOf);
  for (let n = 0; n < 1000; n++) paceOf().tryTake(1);
  for (const flood of floods) while (flood.tryTake(1));
  // Then each of the thousand sent less than its part.
  await sleep(500);
  const busy = paceOf();
  for (let n = 0; n < 2500; n++) expect(busy.tryTake(1)).toBe(true);
});

it.each([
  ["the SDK's own", { code: "CONTAINER_UNAVAILABLE" }, true],
  ["strings that slow the parser down", ["12345678"], false],
  ["a long one", ["x".repeat(5000)], false],
])("a refused connection has a body only if it is harmless: %s", async (_what, body, isKept) => {
  const response = await limitRefusal(Response.json(body, { status: 503 }));
  expect(response.status).toBe(503);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(await response.text()).toBe(isKept ? JSON.stringify(body) : "");
});
