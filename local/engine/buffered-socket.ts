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

const readers = new WeakMap<Duplex, Reader>();

/** Connects as `connect` of node:net does. The socket's stream gets copies, until `passThrough`. */
export function connectBuffered(options: TcpSocketConnectOpts): Socket {
  const buffer = Buffer.allocUnsafeSlow(bufferBytes);
  const callback = (length: number): boolean => readers.get(socket)?.(buffer.subarray(0, length)) ?? false;
  const socket = connect({ ...options, onread: { buffer, callback } });
  readers.set(socket, (bytes) => socket.push(Buffer.from(bytes)));
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
  const throughStream = readers.get(from);
  if (throughStream === undefined) return;
  // Until all of it is written the other connection holds on to the buffer.
  let unwritten = 0;
  let isStopped = false;
  const written = () => {
    unwritten -= 1;
    if (unwritten > 0 || !isStopped) return;
    isStopped = false;
    from.resume();
  };
  readers.set(from, (bytes) => {
    if (from.readableLength > 0 || !isReady()) return throughStream(bytes);
    unwritten += 1;
    write(bytes, written);
    isStopped = to.writableLength > 0;
    return !isStopped;
  });
}
