/**
 * Limits handshakes, the TLS records that contain no data, and reads that end no record. OpenSSL accepts any number of key updates and
 * session tickets (RFC 8446, 4.6). Each of them takes about 20 µs of the engine's thread, and Node does not report them. So TLS gets
 * each record from this file.
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

/** @param start starts TLS over the stream that it gets @param reads the limit that the records without data share with short reads */
export function startTLSOver(
  socket: Duplex,
  reads: Pieces,
  start: (records: Duplex) => TLSSocket,
): TLSSocket {
  let received: Buffer = Buffer.alloc(0);
  let isOpen = false;
  let handshakeBytes = 0;
  let dataBytes = 0;
  const records = new Duplex({
    read: () => void socket.resume(),
    write: (bytes, _encoding, done) => void socket.write(bytes, done),
    final: (done) => void socket.end(done),
    destroy(error, done) {
      socket.destroy();
      done(error);
    },
  });
  socket.on("data", (bytes: Buffer) => {
    received = received.length === 0 ? bytes : Buffer.concat([received, bytes]);
    let hasRoom = true;
    // Other reads count with the records that they end.
    if (firstRecord(received) === 0) reads.take(bytes.length);
    for (let length = firstRecord(received); length > 0; length = firstRecord(received)) {
      if (!isOpen) handshakeBytes += length;
      if (handshakeBytes > MAX_HANDSHAKE) return void socket.destroy(new Error(HOST_PROBLEMS.longHandshake));
      hasRoom = records.push(received.subarray(0, length));
      received = received.subarray(length);
    }
    if (!hasRoom) socket.pause();
  });
  socket.on("end", () => {
    if (received.length > 0) records.push(received);
    records.push(null);
  });
  socket.on("error", (error) => records.destroy(error)).on("close", () => records.destroy());
  reads.join(socket);
  let before: NodeJS.CpuUsage | undefined;
  records.on("data", () => void (before = isOpen ? undefined : process.cpuUsage()));
  const secure = start(records);
  secure.once("secure", () => (isOpen = true));
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
