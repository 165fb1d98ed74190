/**
 * Connections that read into one buffer each, and pass on right from it what is to be passed on as it is. Node's streams make a
 * buffer for each 64 KiB that they read, and its parser of HTTP copies every piece of a body: of a download's processor time in
 * the engine that is more than a third.
 */
import { connect, type Socket, type TcpSocketConnectOpts } from "node:net";
import type { Duplex } from "node:stream";

/** What Node's streams read at once, too. */
const bufferBytes = 65_536;

/** Takes what was read into the buffer. False: it is not to be read into until the connection is resumed. */
type Reader = (bytes: Buffer) => boolean;

interface Reading {
  read: Reader;
  /** Pieces of the buffer that another connection still writes. */
  unwritten: number;
}

const readings = new WeakMap<Duplex, Reading>();

/** Buffers of connections that are over, for the next. V8 would free them only in its rare collections of old objects. */
const spare: Buffer[] = [];

const mostSpare = 256;

/** Connects as `connect` of node:net does. The socket's stream gets copies, until `passThrough`. */
export function connectBuffered(options: TcpSocketConnectOpts): Socket {
  const buffer = spare.pop() ?? Buffer.allocUnsafeSlow(bufferBytes);
  const reading: Reading = { read: (bytes) => socket.push(Buffer.from(bytes)), unwritten: 0 };
  const callback = (length: number): boolean => reading.read(buffer.subarray(0, length));
  const socket = connect({ ...options, onread: { buffer, callback } });
  readings.set(socket, reading);
  socket.once("close", () => {
    // What is still written out of it must not become what the next connection reads.
    if (reading.unwritten === 0 && spare.length < mostSpare) spare.push(buffer);
  });
  return socket;
}

/**
 * Writes what arrives at one connection from now on to another, without the stream of the first, once that has nothing left
 * which came before. Does nothing where the first was not made by `connectBuffered`. Its end stays one of its stream.
 * @param isReady whether all that the stream had has been written to the other connection
 * @param write writes what was read, or as much of it as is to go on, with a function to call when that is done
 */
export function passThrough(
  from: Duplex,
  to: Duplex,
  isReady: () => boolean = () => true,
  write: (bytes: Buffer, written: () => void) => void = (bytes, written) => to.write(bytes, written),
): void {
  const reading = readings.get(from);
  if (reading === undefined) return;
  const throughStream = reading.read;
  // Until all of it is written the other connection holds on to the buffer.
  let isStopped = false;
  const written = () => {
    reading.unwritten -= 1;
    if (reading.unwritten > 0 || !isStopped) return;
    isStopped = false;
    from.resume();
  };
  reading.read = (bytes) => {
    if (from.readableLength > 0 || !isReady()) return throughStream(bytes);
    reading.unwritten += 1;
    write(bytes, written);
    isStopped = to.writableLength > 0;
    return !isStopped;
  };
}
