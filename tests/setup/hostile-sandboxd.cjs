/**
 * Runs in a sandbox in place of sandboxd, as code can do: `node hostile-sandboxd.cjs FLOOD`. FLOOD is a key of `messages`, or
 * `responses` for all responses below. Creates /tmp/ready when it can respond. take-place.cjs comes before this text.
 */
const { createServer } = require("node:http");
const { createGzip } = require("node:zlib");
const { createRequire } = require("node:module");
const { WebSocketServer } = createRequire("/opt/sandbox-runtime/")("ws");

const MIB = 1024 * 1024;

/** A response of the largest size that the actor accepts, with this beginning and this end. */
const filled = (begin, item, end) =>
  begin + item.repeat(Math.floor((8 * MIB - begin.length - end.length) / item.length)) + end;

/** The responses by path. That of a listing depends on its directory. Other paths get an empty object. */
const responses = {
  "/list values": () => filled('{"entries":[', "{},", "{}]}"),
  "/snapshot": () =>
    filled('{"state":"changed","files":1,"bytes":1,"left":{"count":1,"bytes":1,"largest":[', "{},", "{}]}}"),
  "/changes": () => filled('{"changes":{"files":[', "{},", "{}]}}"),
};

/** Messages about a run, which are sent without end. */
const messages = {
  badEvents: () => `{"type":"listening","ports":[${"{},".repeat(5000)}{}]}`,
  output: (id, offset) => piece(id, offset, Buffer.alloc(256 * 1024, "x")),
  /** The most lines of one message that are not events. */
  lines: (id, offset) => piece(id, offset, "{\n".repeat(128 * 1024)),
};

const [, , flood] = process.argv;
const generated = new Map();

const bomb = flood === "responses" ? compressed() : undefined;

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://sandboxd");
  request.resume();
  const path = pathname === "/list" ? `/list ${searchParams.get("path").split("/").at(-1)}` : pathname;
  if (path === "/list encoded") {
    const body = Buffer.concat(await bomb);
    return response.writeHead(200, { "content-encoding": "gzip", "content-length": body.length }).end(body);
  }
  if (path === "/snapshot" && request.method === "GET") return response.end('{"isRestoring":false}');
  if (path === "/list pieces") return sendPieces(response);
  const makeResponse = flood === "responses" && responses[path];
  if (makeResponse && !generated.has(path)) generated.set(path, Buffer.from(makeResponse()));
  response.end(generated.get(path) ?? "{}");
});

/** A response in a million chunks of one byte, which never ends. */
async function sendPieces({ socket }) {
  socket.on("error", () => undefined);
  socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
  const pieces = "1\r\n \r\n".repeat(1000);
  for (let sent = 0; sent < 1000 && !socket.destroyed; sent++)
    if (!socket.write(pieces))
      await new Promise((resolve) => socket.once("drain", resolve).once("close", resolve));
  const trickle = setInterval(
    () => (socket.destroyed ? clearInterval(trickle) : socket.write("1\r\n \r\n")),
    10,
  );
}

/** A listing of a gigabyte, which compresses to a megabyte. Made only once. */
function compressed() {
  const gzip = createGzip({ level: 1 });
  for (const part of ['{"entries":[', ...Array(1024).fill("{},".repeat(MIB / 3)), "{}]}"]) gzip.write(part);
  return gzip.end().toArray();
}

const sockets = new WebSocketServer({ server });
sockets.on("connection", (peer) => {
  peer.on("error", () => undefined);
  peer.on("message", (data) => {
    const call = JSON.parse(String(data));
    if (call.type === "ping") peer.send('{"type":"pong"}');
    if (call.type === "start" && messages[flood]) send(peer, call.id, flood);
    // After a task's end the server asks for the task's changes.
    else if (call.type === "start")
      peer.send(JSON.stringify({ type: "ended", id: call.id, status: 0, stdout: 0, stderr: 0 }));
  });
});

function send(peer, id, kind) {
  let offset = 0;
  const sendMore = () => {
    while (peer.readyState === 1 && peer.bufferedAmount < MIB) {
      const message = messages[kind](id, offset);
      if (typeof message !== "string") offset += message.length - 11 - id.length;
      peer.send(message);
    }
    if (peer.readyState === 1) setImmediate(sendMore);
  };
  sendMore();
}

/** An output message in the format of container/sandboxd/protocol.ts. */
function piece(id, offset, data) {
  const head = Buffer.alloc(11 + id.length);
  head[0] = 1;
  head[2] = id.length;
  head.write(id, 3, "ascii");
  head.writeDoubleBE(offset, 3 + id.length);
  return Buffer.concat([head, Buffer.from(data)]);
}

sendBeats();
takePlace(server);
Promise.resolve(bomb).then(() => fs.writeFileSync("/tmp/ready", ""));
