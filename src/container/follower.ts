/** Follows a run over the connection to sandboxd: takes its output and its end, and resumes where the connection broke. */
import {
  type Event,
  type Piece,
  STREAMS,
  type Stream,
  WINDOW_BYTES,
} from "../../container/sandboxd/protocol.ts";
import { isNoAnswer, noAnswer } from "../shared/errors.ts";
import { type Connection, containerGone } from "./connection.ts";

/** Where the output of a run goes. */
export interface OutputSink {
  readonly id: string;
  /** Whether the run has ended by other means, so that what its execution still reports is ignored. */
  readonly ended: boolean;
  /** Calls `output`, which passes bytes on to `output` and `skipped`, as soon as there is room for them. */
  take(output: () => void): Promise<void>;
  /** The next output of a stream. */
  output(stream: Stream, bytes: Uint8Array): void;
  /** The next `count` bytes of a stream, of which only the last were read, because the log is full. */
  skipped(stream: Stream, count: number, last: Uint8Array): void;
  /** Whether more output of a stream would still be kept. */
  hasRoom(stream: Stream): boolean;
  /** Bytes of a stream so far, which is the offset that a reader continues from. */
  position(stream: Stream): number;
  /** Bytes of a stream that are on disk here, so that the sandbox need not keep them. */
  stored(stream: Stream): number;
  /** Programs of the run listen on these ports, and on no others. */
  listening?(ports: readonly number[]): void;
  /** Resolves with the run's end. */
  readonly settled: Promise<void>;
  /** The same, or after so many milliseconds. */
  over(ms: number): Promise<void>;
}

/** How to reach what runs in the container. */
export interface ContainerLink {
  connection: Connection;
  /** Whether there is a container. */
  running(): boolean;
}

/** How long sandboxd may take to answer a ping, milliseconds: it waits for nothing. */
export const ANSWER_MS = 10_000;

/** How often to check a silent connection, and to report which bytes are on disk here, milliseconds. */
const TICK_MS = 1000;
const SILENCE_TICKS = 10;

/** How long the end of a container is waited for once the way to it broke, milliseconds; and how often it may break for nothing. */
const DOWN_MS = 8000;
const MAX_BREAKS = 20;

/** A connection that has lasted so long was none that broke for nothing, milliseconds. */
const LASTED_MS = 1000;

/** The pause before the way is tried again, milliseconds for each time that it broke. */
const AGAIN_MS = 20;

/** What sandboxd says last of a run. */
export type Outcome = Extract<Event, { type: "ended" | "settled" | "unknown" | "refused" }>;

export abstract class RunFollower {
  protected readonly link: ContainerLink;
  protected readonly sink: OutputSink;
  /** Whether sandboxd has said anything of the run: then it has been started. */
  protected isKnown = false;
  /** Whether sandboxd was sent the word to tell of it, be it that it is to start it. */
  protected wasAsked = false;
  /** How often the way to the container broke. */
  #breaks = 0;
  #connectedAt = Number.POSITIVE_INFINITY;
  #outcome: Outcome | undefined;
  #wake = () => {};
  /** Why the run cannot be followed any more. */
  #failure: unknown;
  #isConnected = false;
  #silence = 0;
  /** Output that has come and is not taken over yet, and how many bytes that is. */
  #taking: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #told = { stdout: 0, stderr: 0 };
  #full = new Set<Stream>();

  constructor(link: ContainerLink, sink: OutputSink) {
    this.link = link;
    this.sink = sink;
  }

  /** Sends what has sandboxd tell of the run from here on. */
  protected abstract ask(): Promise<void>;

  /** Whether nobody waits for the outcome any more. */
  protected get isOver(): boolean {
    return this.sink.ended;
  }

  /** What the run comes to, once all output before it was taken over; undefined when it got its end from elsewhere. */
  protected async outcome(): Promise<Outcome | undefined> {
    const unfollow = this.link.connection.follow(this.sink.id, {
      event: (event) => this.#event(event),
      piece: (piece) => this.#piece(piece),
      broken: () => this.#broken(),
    });
    const tick = setInterval(() => this.#tick(), TICK_MS);
    try {
      // A sandbox that is just being destroyed may keep the way to it waiting, and nobody waits for that any more.
      return (await Promise.race([this.#attend(), this.sink.settled])) ?? undefined;
    } finally {
      clearInterval(tick);
      unfollow();
    }
  }

  async #attend(): Promise<Outcome | undefined> {
    while (!this.isOver && this.#outcome === undefined) {
      if (this.#failure) throw this.#failure;
      if (!this.#isConnected) await this.#connect();
      if (this.#outcome !== undefined || this.#failure || !this.#isConnected) continue;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await Promise.race([promise, this.sink.over(TICK_MS * 60)]);
    }
    return this.#outcome;
  }

  async #connect(): Promise<void> {
    await this.#taking;
    this.#isConnected = true;
    this.#connectedAt = Number.POSITIVE_INFINITY;
    this.#silence = 0;
    this.#full.clear();
    this.#told = { stdout: 0, stderr: 0 };
    try {
      await this.ask();
      this.wasAsked = true;
      this.#connectedAt = Date.now();
      this.#catchUp();
    } catch (error) {
      this.#isConnected = false;
      // Nothing was sent: that the sandbox could not be started, or reached, is what the caller is told.
      if (!this.wasAsked && !isNoAnswer(error)) throw error;
      if (!this.link.running()) return await this.#mended();
      // As long as nobody answers it is tried again: the run has a limit.
      if (!isNoAnswer(error)) throw error;
    }
  }

  #event(event: Event): void {
    this.isKnown = true;
    this.#silence = 0;
    if (event.type === "running" || event.type === "pong" || event.type === "typed") return;
    if (event.type === "listening") return this.sink.listening?.(event.ports);
    void this.#end(event);
  }

  /** What came before the end is taken over before it. */
  async #end(outcome: Outcome): Promise<void> {
    await this.#taking;
    this.#outcome = outcome;
    this.#wake();
  }

  /** One after the other: what comes waits here as long as there is no room for it. */
  #piece(piece: Piece): void {
    const { length } = piece.bytes;
    this.isKnown = true;
    this.#silence = 0;
    this.#waiting += length;
    // Nobody who keeps to the protocol sends more than that without a word from here.
    if (this.#waiting > 4 * WINDOW_BYTES) return this.link.connection.close();
    this.#taking = this.#taking
      .then(() => this.sink.take(() => this.#pass(piece)))
      .catch((error: unknown) => void (this.#failure ??= error))
      .finally(() => {
        this.#waiting -= length;
        this.#catchUp();
      });
  }

  #pass({ stream, offset, bytes }: Piece): void {
    const gap = offset - this.sink.position(stream);
    // What is here already came before a connection broke.
    if (gap < 0) this.sink.output(stream, bytes.subarray(-gap));
    else if (gap > 0) this.sink.skipped(stream, gap + bytes.length, bytes);
    else this.sink.output(stream, bytes);
  }

  /** Says what is safe here, and of which stream no more is kept. */
  #catchUp(): void {
    const { sink } = this;
    const { connection } = this.link;
    const stored = { stdout: sink.stored("stdout"), stderr: sink.stored("stderr") };
    if (stored.stdout > this.#told.stdout || stored.stderr > this.#told.stderr) {
      this.#told = stored;
      connection.tell({ type: "stored", id: sink.id, ...stored });
    }
    for (const stream of STREAMS) {
      if (this.#full.has(stream) || sink.hasRoom(stream)) continue;
      this.#full.add(stream);
      connection.tell({ type: "full", id: sink.id, stream });
    }
  }

  #tick(): void {
    if (!this.#isConnected) return;
    this.#catchUp();
    if (++this.#silence % SILENCE_TICKS !== 0) return;
    // A run may well be silent: a connection that is not is made again.
    this.link.connection.ask(ANSWER_MS).then(
      () => (this.#silence = 0),
      () => this.#broken(),
    );
  }

  #broken(): void {
    if (!this.#isConnected) return;
    this.#isConnected = false;
    void this.#mended();
  }

  /** The way to the container broke: whether the container seems to be there, so that the run goes on. */
  async #mended(): Promise<void> {
    if (Date.now() - this.#connectedAt > LASTED_MS) this.#breaks = 0;
    if (++this.#breaks > MAX_BREAKS) this.#failure = noAnswer(DOWN_MS);
    else await this.sink.over(this.#breaks * AGAIN_MS);
    if (!this.link.running()) {
      await this.sink.over(DOWN_MS);
      this.#failure ??= containerGone();
    }
    this.#wake();
  }
}
