/** Reads a WebSocket connection a few frames at a time, even if many arrive together. */
import { Duplex } from "node:stream";
import type { Pieces } from "./piece-limit.ts";
import { readTurns } from "./read-turns.ts";

/**
 * The cost of a frame, in pieces of a body. A frame costs more than a piece, because each frame is a separate message here, in
 * workerd and at its receiver.
 */
const FRAME_WEIGHT = 4;
const FRAMES_AT_ONCE = 64;
/** The longest message. */
export const maxMessageBytes = 16 * 1024 * 1024;
/** The memory of a read or of a fragment besides its bytes. `ws` keeps both until their message is complete. */
const PART_OVERHEAD = 1024;

/**
 * The connection that `ws` reads. Counts each frame before `ws` parses it, because pausing the socket does not hold back data
 * that has already been read.
 */
export class FramedConnection extends Duplex {
  readonly #socket: Duplex;
  readonly #pieces: Pieces;
  readonly #onRead: (memory: number, isComplete: boolean) => void;
  readonly #frames: FrameReader;
  #rest: Buffer | null = null;
  #carriesFrames: boolean;
  #isReading = false;
  #isEnded = false;
  #isWaiting = false;

  /**
   * @param carriesFrames false if HTTP headers come before the frames: then call `begin`
   * @param onRead gets how much memory the bytes take, and whether every message is complete
   */
  constructor(
    socket: Duplex,
    pieces: Pieces,
    carriesFrames: boolean,
    onRead: (memory: number, isComplete: boolean) => void,
  ) {
    super({ readableHighWaterMark: 1 });
    this.#socket = socket;
    // `ws` refuses a longer message. A frame may announce up to 2^64 bytes, and the pause for them would never end.
    this.#frames = new FrameReader((payload) =>
      pieces.take(Math.min(payload, maxMessageBytes), FRAME_WEIGHT),
    );
    this.#pieces = pieces;
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
    // A destroyed connection would never report its end. The engine destroys those of an earlier server, and the Worker would wait.
    if (this.#socket.destroyed) return done();
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
    const { end, frames } = this.#carriesFrames
      ? this.#frames.pass(bytes, FRAMES_AT_ONCE)
      : { end: bytes.length, frames: 0 };
    if (end < bytes.length) this.#rest = bytes.subarray(end);
    // A read without the beginning of a frame costs as much as a frame.
    if (frames === 0) this.#pieces.take(end, FRAME_WEIGHT);
    readTurns.take(this, end, this.#pieces);
    this.#onRead(end + (1 + frames) * PART_OVERHEAD, this.#frames.isComplete);
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
  #isFragmented = false;

  constructor(onFrame: (payload: number) => void) {
    this.#onFrame = onFrame;
  }

  /** Whether no message is incomplete. */
  get isComplete(): boolean {
    return this.#head.length === 0 && this.#payload === 0 && !this.#isFragmented;
  }

  /** @returns where the first unread frame begins, and how many frames begin before */
  pass(bytes: Buffer, most: number): { end: number; frames: number } {
    let frames = 0;
    let position = 0;
    while (position < bytes.length) {
      if (this.#payload > 0) {
        const part = Math.min(this.#payload, bytes.length - position);
        this.#payload -= part;
        position += part;
        continue;
      }
      if (this.#head.length === 0 && frames === most) break;
      if (this.#head.length === 0) frames += 1;
      this.#head.push(bytes[position++] ?? 0);
      if (this.#head.length < 2 || this.#head.length < 2 + extraBytes(this.#head)) continue;
      this.#payload = payloadOf(this.#head);
      this.#isFragmented = isFragmentedAfter(this.#head, this.#isFragmented);
      this.#head = [];
      this.#onFrame(this.#payload);
    }
    return { end: position, frames };
  }
}

/** Whether a message is incomplete after a frame. Control frames may come between the frames of a message. */
function isFragmentedAfter([first = 0]: number[], before: boolean): boolean {
  const isControl = (first & 0x08) !== 0;
  return isControl ? before : (first & 0x80) === 0;
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
