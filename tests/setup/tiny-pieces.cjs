/**
 * Both ends of a preview that sends only pieces of one byte. `serve PORT` runs in a sandbox: it reads every request
 * for `/in`, and floods all others. `visit PORT HOST PATH SOCKETS KIND SECONDS [MS]` opens sockets to it, and with MS
 * reopens each after that many milliseconds. It ends SECONDS after its start, or for other paths than
 * `/in` after the first response, or when the server no longer listens.
 */
const { createHash } = require("node:crypto");
const { connect, createServer } = require("node:net");

const [, , role, port, host, path, sockets, kind, seconds, lives] = process.argv;

function flood(socket, piece) {
  const bytes = Buffer.from(piece.repeat(10_000), "latin1");
  const write = () => {
    while (!socket.destroyed && socket.write(bytes));
  };
  socket.on("drain", write);
  write();
}

const CHUNK = "1\r\nx\r\n";
/** When visitors end who got no response. */
const LATEST_MS = 30_000;

function serve() {
  const server = createServer((socket) => {
    socket
      .on("error", () => undefined)
      .once("data", (head) => {
        socket.resume();
        const key = /^sec-websocket-key: *(.*)\r$/im.exec(head)?.[1];
        const isFlooded = !/^\w+ \/in /.test(head);
        if (key === undefined) {
          if (!isFlooded) return;
          socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
          return flood(socket, CHUNK);
        }
        const accept = createHash("sha1")
          .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
          .digest("base64");
        socket.write(
          `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
        );
        if (isFlooded) flood(socket, "\x81\x01x");
      });
  });
  server.listen(Number(port), "127.0.0.1", () => console.log("serves"));
}

function visit() {
  const websocket =
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n";
  const open = () => {
    const socket = connect(Number(port), "127.0.0.1");
    socket.on("error", ({ code }) => code === "ECONNREFUSED" && end());
    socket.on("close", () => setTimeout(open, 50));
    const [method, more] =
      kind === "messages" ? ["GET", websocket] : ["POST", "Transfer-Encoding: chunked\r\n"];
    socket.write(
      `${path === "/in" ? method : "GET"} ${path} HTTP/1.1\r\nHost: ${host}\r\n${path === "/in" || kind === "messages" ? more : ""}\r\n`,
    );
    if (lives !== undefined) setTimeout(() => socket.destroy(), Number(lives));
    socket.once("data", (head) => {
      if (/^HTTP\/1.1 (101|200)/.test(head) && counted++ === 0 && path !== "/in") endLater();
    });
    socket.resume();
    if (path !== "/in") return;
    if (kind === "messages") socket.once("data", () => flood(socket, "\x81\x81\0\0\0\0x"));
    else flood(socket, CHUNK);
  };
  let counted = 0;
  const end = () => process.exit(console.log("responses", counted));
  for (let count = 0; count < Number(sockets); count++) open();
  // A flood from the sandbox begins with the first response, which takes seconds on a busy machine.
  const endLater = () => setTimeout(end, Number(seconds) * 1000);
  if (path === "/in") endLater();
  else setTimeout(end, LATEST_MS);
}

if (role === "serve") serve();
else visit();
