/** Runs in a sandbox in place of the control server; see hostile-bundle.ts. */
import { readFileSync, watch, writeFileSync } from "node:fs";
import { type IncomingMessage, Server } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocket, WebSocketServer } from "ws";

const MIB = 1024 * 1024;
/** A call of the Worker's first callback. */
const call = (args: string) => `["push",["pipeline",-1,[],[${args}]]]`;

/** Each function makes a message. The attack sends that message again and again. */
const attacks: Record<string, () => string> = {
  /** Values that the Worker would keep in memory. */
  push: () => call(JSON.stringify("x".repeat(11 * MIB))),
  /** Values that the Worker would keep in memory, less than the engine allows for each connection. */
  calls: () => call(JSON.stringify("x".repeat(10 * MIB))),
  /** A few megabytes that contain many objects. */
  nested: () => call(`[[${"[],".repeat(2 * MIB)}[]]]`),
  /** An expensive response to each request of the Worker. */
  numbers: () => `[[${"1,".repeat(7_000_000)}1]]`,
};

let contextCount = 0;
const connections = new Set<Duplex>();
let attackSeen: string | undefined;
watch("/tmp", (_event, name) => {
  // Prints the data that an attack wrote to this file.
  if (name === "printed") process.stdout.write(readFileSync("/tmp/printed"));
  currentAttack();
}).unref();

const emit = Server.prototype.emit;
Server.prototype.emit = function (this: Server, event: string, ...args: unknown[]): boolean {
  const name = currentAttack();
  const [request, socket, head] = args as [IncomingMessage, Duplex, Buffer];
  if (event !== "upgrade" || request.url !== "/rpc") return Reflect.apply(emit, this, [event, ...args]);
  connections.add(socket);
  if (name === undefined) return Reflect.apply(emit, this, [event, ...args]);
  if (name === "endless-head") {
    socket.write("HTTP/1.1 101 Switching Protocols\r\n");
    const line = `X-Y: ${"y".repeat(1000)}\r\n`.repeat(1000);
    const sendMore = () => void (socket.destroyed || (socket.write(line) && setImmediate(sendMore)));
    socket.on("drain", sendMore).on("error", () => undefined);
    sendMore();
    return true;
  }
  new WebSocketServer({ noServer: true }).handleUpgrade(request, socket, head, (peer) => send(peer, name));
  return true;
};

/** Closes the connections from before this attack. A later event for the same attack must not close the connections of the attack. */
function currentAttack(): string | undefined {
  const name = readAttack();
  if (name === undefined || name === attackSeen) return name;
  attackSeen = name;
  for (const socket of connections) socket.destroy();
  connections.clear();
  return name;
}

function readAttack(): string | undefined {
  try {
    // The file exists before it has content.
    return readFileSync("/tmp/attack", "utf8").trim() || undefined;
  } catch {
    return undefined;
  }
}

/** An attack with this name responds with the JSON after it. */
const REPLY = "reply ";

function send(peer: WebSocket, name: string): void {
  const message = attacks[name]?.() ?? "";
  if (name === "numbers") return reply(peer, () => message);
  // Contexts that the SDK would keep in memory because their deletion fails, and code without output.
  if (name === "contexts") {
    const large = () => `{"id":"${++contextCount}","cwd":"${"x".repeat(8 * MIB)}"}`;
    return reply(peer, large, /delete/i);
  }
  if (name.startsWith(REPLY)) {
    writeFileSync("/var/tmp/current-attack", name);
    return reply(peer, () => name.slice(REPLY.length));
  }
  let count = 0;
  peer.on("error", () => undefined);
  // With three, the attack "calls" is below the engine's limit for one connection. The file tells that they have been sent.
  const most = name === "calls" ? 3 : Infinity;
  const noteSent = () => void (count >= most && peer.bufferedAmount === 0 && writeFileSync("/tmp/sent", ""));
  if (name === "calls") peer.once("close", () => writeFileSync("/tmp/sent", ""));
  const sendMore = () => {
    while (
      count < most &&
      peer.readyState === WebSocket.OPEN &&
      peer.bufferedAmount < message.length + 4096
    ) {
      peer.send(message, noteSent);
      count += 1;
    }
    if (count < most && peer.readyState === WebSocket.OPEN) setImmediate(sendMore);
  };
  let isSending = false;
  peer.on("message", (data: Buffer) => {
    const text = data.toString();
    // The attack begins when the Worker can be called.
    if (isSending) return;
    isSending = text.includes('["export",-1]');
    if (isSending) return sendMore();
    const id = pulled(text);
    if (id !== undefined) peer.send(`["resolve",${id},{"id":"x"}]`);
  });
}

/** The number of the call whose result the Worker requests with this message. */
function pulled(text: string): number | undefined {
  const [, id] = /^\["pull",(-?\d+)\]$/.exec(text) ?? [];
  return id === undefined ? undefined : Number(id);
}

/** @param failing calls that fail instead */
function reply(peer: WebSocket, value: () => string, failing?: RegExp): void {
  const failed = new Set<number>();
  let calls = 0;
  peer.on("error", () => undefined);
  peer.on("message", (data: Buffer) => {
    const text = data.toString();
    if (text.startsWith('["push",')) {
      calls += 1;
      if (failing?.test(text)) failed.add(calls);
    }
    const id = pulled(text);
    if (id === undefined) return;
    peer.send(
      failed.has(id) ? `["reject",${id},["error","Error","refused"]]` : `["resolve",${id},${value()}]`,
    );
  });
}

void import("../../local/runtime/main.ts");
