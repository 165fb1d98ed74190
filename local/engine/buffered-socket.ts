/**
 * Connections that reuse one buffer each for reading, and forward unchanged data directly from it. Node's streams allocate a new
 * buffer for each read, and its HTTP parser copies every piece of a body. Both together would multiply the engine's processor time
 * during a download.
 */
import { connect, type Socket, type TcpSocketConnectOpts } from "node:net";
import type { Duplex } from "node:stream";

/** The size of buffers in Node's streams. */
const BUFFER_BYTES = 65_536;

interface Reading {
  /** Handles bytes in the buffer. Returns false if the buffer must not be reused until the connection is resumed. */
  read: (bytes: Buffer) => boolean;
}

const readings = new WeakMap<Duplex, Reading>();

/** Connects like `connect` of node:net. The socket's stream gets copies of the data until `passThrough` is called. */
export function connectBuffered(options: TcpSocketConnectOpts): Socket {
  const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  const reading: Reading = { read: (bytes) => socket.push(Buffer.from(bytes)) };
  const callback = (length: number) => reading.read(buffer.subarray(0, length));
  const socket = connect({ ...options, onread: { buffer, callback } });
  readings.set(socket, reading);
  return socket;
}

/**
 * Forwards data of a `connectBuffered` socket directly, bypassing its stream, once earlier data is written. Does nothing for
 * other sockets. The end of the data still goes through the stream.
 * @param isReady whether all earlier data was written
 * @param write forwards bytes, and then calls its second argument
 */
export function passThrough(
  from: Duplex,
  to: Duplex,
  isReady: () => boolean = () => true,
  write: (bytes: Buffer, onWritten: () => void) => void = (bytes, onWritten) => to.write(bytes, onWritten),
): void {
  const reading = readings.get(from);
  if (reading === undefined) return;
  const throughStream = reading.read;
  let unwritten = 0;
  // Reading stops while the other connection still writes from the buffer.
  let isStopped = false;
  const onWritten = () => {
    unwritten -= 1;
    if (unwritten > 0 || !isStopped) return;
    isStopped = false;
    from.resume();
  };
  from.on("resume", () => void (isStopped && from.pause()));
  reading.read = (bytes) => {
    if (from.readableLength > 0 || !isReady()) return throughStream(bytes);
    unwritten += 1;
    write(bytes, onWritten);
    isStopped = to.writableLength > 0;
    return !isStopped;
  };
}
