/** Reads the server name from the first message of a sandbox's TLS connection (RFC 8446, 4.1.2; RFC 6066, 3). */
import type { Duplex } from "node:stream";
import { canonicalHost, isAddress } from "../../src/shared/network-policy.ts";

type ClientHello = { name: string | undefined } | { problem: string };
/** The largest ClientHello, in bytes. Post-quantum keys take 2 KB of it. */
const maxBytes = 16_384;
const helloMs = 10_000;
const handshake = 22;
const clientHello = 1;
const serverName = 0;
const hostName = 0;
const encryptedClientHello = 0xfe0d;
/** The most TLS records of a ClientHello. Most clients send one. Some send two or three, to hide the server name from observers. */
const maxRecords = 8;
const noTLS = { problem: "the connection does not begin with TLS" };
const tooMuch = { problem: "the ClientHello is too long" };
/** The program has left, or was too slow. It named no other host, so this is no refusal. */
export const NO_HELLO = "no ClientHello arrived";

/**
 * Reads the ClientHello in a tunnel and puts it back for the next reader. Returns undefined if the ClientHello names the tunnel's
 * host, and the problem otherwise.
 */
export async function problemWithTLS(
  host: string,
  socket: Duplex,
  head: Buffer,
): Promise<string | undefined> {
  const reader = new ClientHelloReader();
  const deadline = Date.now() + helloMs;
  const pieces = [head];
  let hello = reader.add(head);
  while (hello === undefined) {
    const more = await nextBytes(socket, deadline);
    if (more === undefined) return NO_HELLO;
    pieces.push(more);
    hello = reader.add(more);
  }
  if ("problem" in hello) return hello.problem;
  const { name } = hello;
  // TLS does not name servers that are known only by address (RFC 6066, 3).
  const agrees = name === undefined ? isAddress(host) : canonicalHost(name) === host;
  if (!agrees) return `the ClientHello names ${name ?? "no server"}`;
  socket.unshift(Buffer.concat(pieces));
  return undefined;
}

function nextBytes(socket: Duplex, deadline: number): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => done(undefined), Math.max(0, deadline - Date.now()));
    const onData = (chunk: Buffer) => done(chunk);
    const onEnd = () => done(undefined);
    const done = (chunk: Buffer | undefined) => {
      clearTimeout(timer);
      socket.pause();
      socket.off("data", onData).off("end", onEnd).off("close", onEnd);
      resolve(chunk);
    };
    socket.on("data", onData).on("end", onEnd).on("close", onEnd);
    if (socket.destroyed) done(undefined);
    else socket.resume();
  });
}

class ClientHelloReader {
  readonly #head = Buffer.alloc(5);
  #headBytes = 0;
  #left = 0;
  #records = 0;
  readonly #message = Buffer.alloc(maxBytes);
  #messageBytes = 0;

  add(bytes: Buffer): ClientHello | undefined {
    let at = 0;
    while (at < bytes.length) {
      if (this.#left === 0) {
        this.#head[this.#headBytes++] = bytes[at++] ?? 0;
        const problem = this.#readHead();
        if (problem !== undefined) return problem;
        continue;
      }
      const piece = bytes.subarray(at, at + Math.min(this.#left, maxBytes - this.#messageBytes));
      if (piece.length === 0) return tooMuch;
      piece.copy(this.#message, this.#messageBytes);
      this.#messageBytes += piece.length;
      this.#left -= piece.length;
      at += piece.length;
      const read = this.#readMessage();
      if (read !== undefined) return read;
    }
    return undefined;
  }

  #readHead(): ClientHello | undefined {
    const [type, version] = this.#head;
    if (type !== handshake || (this.#headBytes > 1 && version !== 3)) return noTLS;
    if (this.#headBytes < this.#head.length) return undefined;
    this.#headBytes = 0;
    this.#left = this.#head.readUInt16BE(3);
    if (this.#left === 0 || this.#left > maxBytes) return noTLS;
    this.#records += 1;
    return this.#records > maxRecords ? tooMuch : undefined;
  }

  #readMessage(): ClientHello | undefined {
    const message = this.#message.subarray(0, this.#messageBytes);
    if (message[0] !== clientHello) return noTLS;
    if (message.length < 4) return undefined;
    const messageLength = 4 + message.readUIntBE(1, 3);
    if (messageLength > maxBytes) return tooMuch;
    if (message.length < messageLength) return undefined;
    try {
      return parse(new Reader(message.subarray(4, messageLength)));
    } catch {
      return { problem: "the ClientHello is malformed" };
    }
  }
}

function parse(hello: Reader): ClientHello {
  // Skips the version and the random bytes, then the session, the cipher suites and the compression methods.
  hello.take(34);
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
    // With ECH the real name may differ from the visible one.
    if (type === encryptedClientHello) return { problem: "the server name is encrypted (ECH)" };
    if (type !== serverName) continue;
    const list = new Reader(data.vector(2));
    while (!list.isEmpty) {
      const kind = list.number(1);
      const value = list.vector(2);
      if (kind !== hostName || ++names > 1) return { problem: "the ClientHello names several servers" };
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

  /** @throws RangeError if fewer bytes are left */
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

  vector(size: number): Buffer {
    return this.take(this.number(size));
  }
}
