/**
 * Limits handshakes, the TLS records that contain no data, and reads that end no record. OpenSSL accepts any number of key updates and
 * session tickets (RFC 8446, 4.6). Each of them takes about 20 µs of the engine's thread, and Node does not report them. So TLS gets
 * each record from this file, and no further one while a limit is exceeded.
 */
import { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { Pieces } from "./piece-limit.ts";
import { HOST_PROBLEMS } from "./texts.ts";

const HEAD_BYTES = 5;
/** The longest content of a record (RFC 5246, 6.2.3). */
const MAX_CONTENT = 16_384 + 2048;
/** So many bytes without data cost about as much as a short read. A record can contain several session tickets. */
const BYTES_OF_A_READ = 32;
/**
 * The longest handshake of one side, in bytes. Hosts send 3 to 8 KB, and OpenSSL accepts 100 KB of certificates. A host chooses the
 * exponents of their keys: the signatures of 75 certificates took the engine's thread 0.5 s.
 */
const MAX_HANDSHAKE = 16_384;
/**
 * The processor time of a record of a handshake that counts as a short read, in milliseconds. A record that takes at most `FREE_MS`
 * counts as one. Measured when these did not count: 200 handshakes in records of one byte took the engine's thread 3.7 s, all at once.
 */
const MS_OF_A_READ = 0.04;
const FREE_MS = 5;

/**
 * Starts TLS over a connection. TLS gets a record only while no limit pauses the connection, and after the reader of the TLS connection has
 * taken the data of the records before. So the reader's limit counts each record with data before the next one is decrypted.
 * @param start starts TLS over the stream that it gets
 * @param reads the limit that the records without data share with short reads
 * @param data the limit that counts the reads of the TLS connection
 */
export function startTLSOver(
  socket: Duplex,
  reads: Pieces,
  start: (records: Duplex) => TLSSocket,
  data: Pieces = reads,
): TLSSocket {
  let received: Buffer = Buffer.alloc(0);
  let isOpen = false;
  let handshakeBytes = 0;
  let dataBytes = 0;
  const records = new Duplex({
    // While TLS does not read, one record waits here, and the others wait in the connection's buffer.
    readableHighWaterMark: 1,
    read: () => void socket.resume(),
    write: (bytes, _encoding, done) => void socket.write(bytes, done),
    final: (done) => void socket.end(done),
    destroy(error, done) {
      socket.destroy();
      done(error);
    },
  });
  const mustWait = () => socket.isPaused() || reads.isPaused || data.isPaused || secure.readableLength > 0;
  /** Puts the received records back until the connection is resumed. Its end, too, then comes after them. */
  const wait = () => {
    socket.pause();
    socket.unshift(received);
    received = Buffer.alloc(0);
  };
  socket.on("data", (bytes: Buffer) => {
    received = received.length === 0 ? bytes : Buffer.concat([received, bytes]);
    // Other reads count with the records that they end.
    if (firstRecord(received) === 0) reads.take(bytes.length);
    for (let length = firstRecord(received); length > 0; length = firstRecord(received)) {
      if (mustWait()) return wait();
      if (!isOpen) handshakeBytes += length;
      if (handshakeBytes > MAX_HANDSHAKE) return void socket.destroy(new Error(HOST_PROBLEMS.longHandshake));
      const record = received.subarray(0, length);
      received = received.subarray(length);
      if (!records.push(record)) socket.pause();
    }
  });
  socket.on("end", () => {
    if (received.length > 0) records.push(received);
    records.push(null);
  });
  socket.on("error", (error) => records.destroy(error)).on("close", () => records.destroy());
  reads.join(socket);
  if (data !== reads) data.join(socket);
  let before: NodeJS.CpuUsage | undefined;
  records.on("data", () => void (before = isOpen ? undefined : process.cpuUsage()));
  const secure = start(records);
  secure.once("secure", () => (isOpen = true));
  const read = secure.read.bind(secure);
  // The reader takes data that was waiting, so TLS may get the next record. Data that does not wait is not taken with this method.
  secure.read = (size) => {
    const taken: unknown = read(size);
    if (taken !== null) socket.resume();
    return taken;
  };
  // TLS has its own listener, which was added before, so it has read the record already.
  records.on("data", (record: Buffer) => {
    if (before !== undefined) {
      const { user, system } = process.cpuUsage(before);
      const ms = (user + system) / 1000;
      reads.take(0, ms > FREE_MS ? ms / MS_OF_A_READ : 1);
    } else if (secure.bytesRead === dataBytes) reads.take(0, Math.max(1, record.length / BYTES_OF_A_READ));
    dataBytes = secure.bytesRead;
  });
  return secure;
}

/** The length of the first record in `bytes`; 0 if it is incomplete. What is no record counts as one, and TLS refuses it. */
function firstRecord(bytes: Buffer): number {
  if (bytes.length < HEAD_BYTES) return 0;
  const content = bytes.readUInt16BE(HEAD_BYTES - 2);
  if (bytes[1] !== 3 || content > MAX_CONTENT) return bytes.length;
  return bytes.length < HEAD_BYTES + content ? 0 : HEAD_BYTES + content;
}
