/**
 * Reads the server name out of the first bytes of a TLS connection (RFC 8446, 4.1.2; RFC 6066, 3), without taking part in
 * it. Everything here comes from a sandbox.
 */

/** What a client asks for: `name` is undefined where it names no server. */
export type ClientHello = { name: string | undefined } | { problem: string };

/** Bytes of a ClientHello at most, its records' heads included. Keys that withstand quantum computers take 2 KB of them. */
const maxBytes = 16_384;

const handshake = 22;
const clientHello = 1;
const serverName = 0;
const hostName = 0;
const encryptedClientHello = 0xfe0d;

/** @returns undefined while bytes are missing */
export function readClientHello(bytes: Buffer): ClientHello | undefined {
  const message = messageOf(bytes);
  if (message === undefined)
    return bytes.length > maxBytes ? { problem: "it begins with too much" } : undefined;
  if ("problem" in message) return message;
  try {
    return parse(new Reader(message.body));
  } catch {
    return { problem: "its ClientHello is malformed" };
  }
}

const noTLS = { problem: "it is no TLS" };

/** The body of the first handshake message, which may be spread over records. */
function messageOf(bytes: Buffer): { body: Buffer } | { problem: string } | undefined {
  const parts: Buffer[] = [];
  let at = 0;
  for (;;) {
    if (bytes.length > at && bytes[at] !== handshake) return noTLS;
    if (bytes.length > at + 1 && bytes[at + 1] !== 3) return noTLS;
    if (bytes.length < at + 5) return undefined;
    const length = bytes.readUInt16BE(at + 3);
    if (length === 0 || length > maxBytes) return noTLS;
    parts.push(bytes.subarray(at + 5, at + 5 + length));
    const joined = Buffer.concat(parts);
    if (joined.length > 0 && joined[0] !== clientHello) return noTLS;
    if (joined.length >= 4) {
      const whole = 4 + joined.readUIntBE(1, 3);
      if (whole > maxBytes) return { problem: "it begins with too much" };
      if (joined.length >= whole) return { body: joined.subarray(4, whole) };
    }
    at += 5 + length;
    if (bytes.length < at) return undefined;
  }
}

function parse(hello: Reader): ClientHello {
  // Version and random.
  hello.take(34);
  // Session, cipher suites, compression.
  hello.vector(1);
  hello.vector(2);
  hello.vector(1);
  if (hello.isEmpty) return { name: undefined };
  const extensions = new Reader(hello.vector(2));
  let name: string | undefined;
  let names = 0;
  while (!extensions.isEmpty) {
    const type = extensions.number(2);
    const data = new Reader(extensions.vector(2));
    // What it names for real could be another than what it shows.
    if (type === encryptedClientHello) return { problem: "its server name is encrypted (ECH)" };
    if (type !== serverName) continue;
    const list = new Reader(data.vector(2));
    while (!list.isEmpty) {
      const kind = list.number(1);
      const value = list.vector(2);
      if (kind !== hostName || ++names > 1) return { problem: "it names several servers" };
      name = value.toString("latin1");
    }
  }
  return { name };
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isEmpty(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** @throws RangeError when there are not so many */
  take(count: number): Buffer {
    const end = this.#at + count;
    if (end > this.#bytes.length) throw new RangeError("too short");
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }

  number(size: number): number {
    return this.take(size).readUIntBE(0, size);
  }

  /** Bytes behind their length, which has `size` bytes. */
  vector(size: number): Buffer {
    return this.take(this.number(size));
  }
}
