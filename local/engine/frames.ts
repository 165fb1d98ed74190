/** Reads a WebSocket connection a few frames at a time, even if many arrive together. */
import { Duplex } from "node:stream";
import { maxMessageBytes } from "./control-guard.ts";
import type { Pieces } from "./piece-limit.ts";

/**
 * The cost of a frame, in pieces of a body. A frame costs more than a piece, because each frame is a separate message here, in
 * workerd and at its receiver.
 */
const FRAME_WEIGHT = 4;
const FRAMES_AT_ONCE = 64;

/**
 * The connection that `ws` reads. Counts each frame before `ws` parses it, because pausing the socket does not hold back data
 * that has already been read.
 */
export class FramedConnection extends Duplex {
  readonly #socket: Duplex;
  readonly #onRead: (bytes: number) => void;
  readonly #frames: FrameReader;
  #rest: Buffer | null = null;
  #carriesFrames: boolean;
  #isReading = false;
  #isEnded = false;
  #isWaiting = false;

  /** @param carriesFrames false if HTTP headers come before the frames: then call `begin` @param onRead gets the number of bytes */
  constructor(socket: Duplex, pieces: Pieces, carriesFrames: boolean, onRead: (bytes: number) => void) {
    super({ readableHighWaterMark: 1 });
    this.#socket = socket;
    // `ws` refuses a longer message. A frame may announce up to 2^64 bytes, and the pause for them would never end.
    this.#frames = new FrameReader((payload) =>
      pieces.take(Math.min(payload, maxMessageBytes), FRAME_WEIGHT),
    );
    this.#carriesFrames = carriesFrames;
    this.#onRead = onRead;
    const end = () => {
      this.#isEnded = true;
      this.#pass();
    };
    socket.on("readable", () => this.#pass());
    socket.on("end", end).on("close", end);
    socket.on("error", (error) => this.destroy(error));
    pieces.join(this);
  }

  /** Call it after the headers, when frames follow. If frames arrived together with the headers, give them back with `unshift`. */
  begin(): void {
    this.#carriesFrames = true;
  }

  override unshift(bytes: Buffer): void {
    this.#rest = this.#rest === null ? bytes : Buffer.concat([bytes, this.#rest]);
  }

  override _read(): void {
    this.#isReading = true;
    this.#pass();
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(bytes, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#socket.cork();
    for (const [at, { chunk }] of chunks.entries())
      this.#socket.write(chunk, at === chunks.length - 1 ? done : undefined);
    this.#socket.uncork();
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  #pass(): void {
    if (!this.#isReading || this.#isWaiting || this.readableEnded || this.destroyed) return;
    // Bytes that come back with `unshift` belong before all later ones.
    if (!this.#carriesFrames && this.readableLength > 0) return this.#waitForHead();
    const bytes: Buffer | null = this.#rest ?? this.#socket.read();
    this.#rest = null;
    if (bytes === null) {
      if (this.#isEnded) this.push(null);
      return;
    }
    const end = this.#carriesFrames ? this.#frames.pass(bytes, FRAMES_AT_ONCE) : bytes.length;
    if (end < bytes.length) this.#rest = bytes.subarray(end);
    this.#onRead(end);
    this.#isReading = false;
    if (!this.#carriesFrames) this.#waitForHead();
    this.push(bytes.subarray(0, end));
  }

  /** Waits until the reader has parsed the forwarded headers, which decide whether frames follow. */
  #waitForHead(): void {
    this.#isWaiting = true;
    setImmediate(() => {
      this.#isWaiting = false;
      this.#pass();
    });
  }
}

/** Finds the boundaries of frames (RFC 6455, 5.2). */
class FrameReader {
  readonly #onFrame: (payload: number) => void;
  #head: number[] = [];
  #payload = 0;

  constructor(onFrame: (payload: number) => void) {
    this.#onFrame = onFrame;
  }

  pass(bytes: Buffer, most: number): number {
    let frames = 0;
    let position = 0;
    while (position < bytes.length) {
      if (this.#payload > 0) {
        const part = Math.min(this.#payload, bytes.length - position);
        this.#payload -= part;
        position += part;
        continue;
      }
      if (this.#head.length === 0 && frames++ === most) break;
      this.#head.push(bytes[position++] ?? 0);
      if (this.#head.length < 2 || this.#head.length < 2 + extraBytes(this.#head)) continue;
      this.#payload = payloadOf(this.#head);
      this.#head = [];
      this.#onFrame(this.#payload);
    }
    return position;
  }
}

function extraBytes([, second = 0]: number[]): number {
  const length = second & 0x7f;
  return (length === 127 ? 8 : length === 126 ? 2 : 0) + (second & 0x80 ? 4 : 0);
}

function payloadOf(head: number[]): number {
  const length = (head[1] ?? 0) & 0x7f;
  const long = head.slice(2, length === 127 ? 10 : 4);
  return length < 126 ? length : long.reduce((value, byte) => value * 256 + byte, 0);
}
