/**
 * Connections that reuse one buffer each for reading, and forward unchanged data directly from it. Node's streams allocate a new
 * buffer for each 64 KiB, and its HTTP parser copies every piece of a body. These allocations and copies would take over a third
 * of the engine's processor time during a download.
 */
import type { Socket, TcpSocketConnectOpts } from "node:net";
import type { Duplex } from "node:stream";
import { splice } from "../../container/sandboxd/splice.ts";
import { HostSocket, UNREAD_MS } from "./host-socket.ts";
import type { Pieces } from "./piece-limit.ts";

/** The size of buffers in Node's streams. */
const bufferBytes = 65_536;
const pieceBytes = 16_384;

/** Handles bytes in the buffer. Returns false if the buffer must not be reused until the connection is resumed. */
type Reader = (bytes: Buffer) => boolean;

interface Reading {
  read: Reader;
  unwritten: number;
}

const readings = new WeakMap<Duplex, Reading>();
/** Buffers of closed connections, for reuse. V8 would free them only in its rare collections of old objects. */
const spare: Buffer[] = [];
const maxSpare = 256;

/** Connects like `connect` of node:net. The socket's stream gets copies of the data until `passThrough` is called. */
export function connectBuffered(options: TcpSocketConnectOpts): HostSocket {
  const buffer = spare.pop() ?? Buffer.allocUnsafeSlow(bufferBytes);
  const reading: Reading = { read: (bytes) => pushPieces(socket, bytes), unwritten: 0 };
  const callback = (length: number): boolean => reading.read(buffer.subarray(0, length));
  const all = { ...options, onread: { buffer, callback } };
  const socket = new HostSocket(all).connect(all);
  readings.set(socket, reading);
  socket.once("close", () => {
    // The next connection must not use a buffer from which data is still being written.
    if (reading.unwritten === 0 && spare.length < maxSpare) spare.push(buffer);
  });
  return socket;
}

/** Pushes copies in pieces. If the reader closes the socket after a piece, the remaining bytes are dropped. */
function pushPieces(socket: Socket, bytes: Buffer): boolean {
  let isReading = true;
  for (let at = 0; at < bytes.length && !socket.destroyed; at += pieceBytes)
    isReading = socket.push(Buffer.from(bytes.subarray(at, at + pieceBytes)));
  return isReading;
}

/**
 * Forwards data of a `connectBuffered` socket directly, bypassing its stream, once earlier data is written. Does nothing for
 * other sockets. The end of the data still goes through the stream.
 * @param reads limits the rate of short reads
 * @param isReady whether all earlier data was written
 * @param write forwards bytes, and then calls its second argument
 */
export function passThrough(
  from: Duplex,
  to: Duplex,
  reads: Pieces,
  isReady: () => boolean = () => true,
  write: (bytes: Buffer, onWritten: () => void) => void = (bytes, onWritten) => to.write(bytes, onWritten),
): void {
  const reading = readings.get(from);
  if (reading === undefined) return;
  const throughStream = reading.read;
  // Reading stops while the other connection still writes from the buffer.
  let isStopped = false;
  const onWritten = () => {
    reading.unwritten -= 1;
    if (reading.unwritten > 0 || !isStopped) return;
    isStopped = false;
    from.resume();
  };
  // Another limit may resume the connection.
  from.on("resume", () => void (isStopped && from.pause()));
  reading.read = (bytes) => {
    if (from.readableLength > 0 || !isReady()) return throughStream(bytes);
    reading.unwritten += 1;
    reads.read(from, bytes.length);
    write(bytes, onWritten);
    isStopped = to.writableLength > 0;
    return !isStopped;
  };
}

/** Closes a connection to a host. If it is TCP, the kernel drops the data that the host has not received. */
export function resetConnection(connection: Duplex): void {
  if (connection instanceof HostSocket) connection.reset();
  else connection.destroy();
}

/**
 * Connects a sandbox's tunnel to its host, and resets the connection to the host if the program has disconnected early. Otherwise, the
 * kernel would keep data that the host does not read, for minutes: 30 tunnels took 115 MB of the machine's TCP memory.
 * @param reads limits the rate of short reads in both directions
 */
export function connectStreams(client: Duplex, upstream: Duplex, reads: Pieces): void {
  const reset = () => resetConnection(upstream);
  // Before the listeners of `splice`, which would close the connection without a reset.
  client.once("error", reset).once("close", () => {
    // The connection closes when the host has received the data.
    if (upstream.destroyed) return;
    if (!client.readableEnded || !client.writableFinished) return reset();
    let unsent = upstream.writableLength;
    const check = () => {
      // Now it closes when its host has received everything.
      if (upstream.destroyed) return;
      if (upstream.writableLength >= unsent) return reset();
      unsent = upstream.writableLength;
    };
    const late = setInterval(check, UNREAD_MS).unref();
    upstream.once("close", () => clearInterval(late));
  });
  splice(client, upstream);
  passThrough(upstream, client, reads);
  for (const stream of [client, upstream]) reads.count(stream);
}
