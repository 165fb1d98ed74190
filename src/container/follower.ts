/** Follows a run over the connection to sandboxd: takes its output and its end, and resumes where the connection broke. */
import {
  type Event,
  type Piece,
  STREAMS,
  type Stream,
  type Variables,
  WINDOW_BYTES,
} from "../../container/sandboxd/protocol.ts";
import { isUnresponsive, sandboxUnresponsive } from "../shared/errors.ts";
import type { Connection, ReadyForRun } from "./connection.ts";
import { containerGone } from "./gone.ts";

/** Where the output of a run goes. */
export interface OutputSink {
  readonly id: string;
  /** Whether the run has ended by other means, so that what its execution still reports is ignored. */
  readonly ended: boolean;
  /** Whether somebody waits for the run's next output; missing where that changes nothing. */
  readonly isWatched?: boolean;
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
  waitUntilEnded(ms: number): Promise<void>;
}

/** How to reach what runs in the container. */
export interface ContainerLink {
  connection: Connection;
  /** Whether there is a container. */
  running(): boolean;
  ready: ReadyForRun;
  /** The sandbox's variables; undefined where it never had any. */
  variables?(): Variables | undefined;
}

/** How long sandboxd may take to answer a ping, milliseconds: it waits for nothing. */
export const RESPONSE_MS = 10_000;

/** How often to check a silent connection, and to report which bytes are on disk here, milliseconds. */
const TICK_MS = 1000;
const SILENCE_TICKS = 10;

/**
 * After a connection has broken and the platform says that no container runs: how long the container's own end is waited for,
 * which has a better reason to give, milliseconds. And how many connections may break in a row before the run is given up.
 */
const DOWN_MS = 8000;
const MAX_BREAKS = 20;

/** How long a run waits for a sandboxd that stays away, milliseconds. One that hangs is replaced after 15 s of its own time. */
const RECONNECT_LIMIT_MS = 60_000;

/** A connection that has lasted longer does not count as one of those in a row, milliseconds. */
const STABLE_MS = 1000;

/** The pause before the next connection, milliseconds for each of those in a row. */
const RECONNECT_STEP_MS = 20;

/** What sandboxd says last of a run. */
export type Outcome = Extract<Event, { type: "ended" | "settled" | "unknown" | "refused" }>;

export abstract class RunFollower {
  protected readonly link: ContainerLink;
  protected readonly sink: OutputSink;
  /** Whether sandboxd has said anything of the run: then it has been started. */
  protected isKnown = false;
  /** Whether `ask` has succeeded once: sandboxd may have started the run since. */
  protected wasAsked = false;
  /** How many connections have broken in a row. */
  #breaks = 0;
  /** When the first of them broke. */
  #brokenAt = 0;
  /** Since when sandboxd has not answered. */
  #awaySince: number | undefined;
  #connectedAt = Number.POSITIVE_INFINITY;
  #outcome: Outcome | undefined;
  #wake = () => {};
  /** Why the run cannot be followed any more. */
  #failure: unknown;
  #isConnected = false;
  #silence = 0;
  /** Resolves when the sink has taken all output that has come; and the bytes that it has not taken yet. */
  #taking: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  /** What sandboxd was told over this connection: bytes that are stored, and streams of which no more is kept. */
  #acknowledged = { stdout: 0, stderr: 0 };
  #full = new Set<Stream>();

  constructor(link: ContainerLink, sink: OutputSink) {
    this.link = link;
    this.sink = sink;
  }

  /** Asks sandboxd to report the run over this connection, or to start it and to report it. */
  protected abstract requestRun(): Promise<void>;

  /** Whether nobody waits for the outcome any more. */
  protected get isOver(): boolean {
    return this.sink.ended;
  }

  /** The last word on the run, once the sink has all output before it; undefined when the run was ended by other means. */
  protected async outcome(): Promise<Outcome | undefined> {
    const unfollow = this.link.connection.follow(this.sink.id, {
      event: (event) => this.#event(event),
      piece: (piece) => this.#receivePiece(piece),
      broken: () => this.#broken(),
    });
    const tick = setInterval(() => this.#tick(), TICK_MS);
    try {
      // A call to a sandbox that is being destroyed may wait for long; a run that has ended meanwhile does not.
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
      await Promise.race([promise, this.sink.waitUntilEnded(TICK_MS * 60)]);
    }
    return this.#outcome;
  }

  async #connect(): Promise<void> {
    await this.#taking;
    this.#isConnected = true;
    this.#connectedAt = Number.POSITIVE_INFINITY;
    this.#silence = 0;
    this.#full.clear();
    this.#acknowledged = { stdout: 0, stderr: 0 };
    try {
      await this.requestRun();
      this.wasAsked = true;
      this.#awaySince = undefined;
      this.#connectedAt = Date.now();
      this.#catchUp();
    } catch (error) {
      this.#isConnected = false;
      // Where nothing was sent, the caller is told that the sandbox could not be started, or reached.
      if (this.wasAsked && !this.link.running()) return await this.#reconnectDelay();
      if (!isUnresponsive(error)) throw error;
      this.#awaySince ??= Date.now();
      const awayMs = Date.now() - this.#awaySince;
      if (awayMs >= RECONNECT_LIMIT_MS) throw sandboxUnresponsive(awayMs);
    }
  }

  #event(event: Event): void {
    this.isKnown = true;
    this.#silence = 0;
    if (event.type === "running" || event.type === "pong" || event.type === "typed") return;
    if (event.type === "listening") return this.sink.listening?.(event.ports);
    void this.#end(event);
  }

  /** The sink takes all output that came before the end first. */
  async #end(outcome: Outcome): Promise<void> {
    await this.#taking;
    this.#outcome = outcome;
    this.#wake();
  }

  /** Gives output to the sink in order; it waits here while the sink has no room. */
  #receivePiece(piece: Piece): void {
    const { length } = piece.bytes;
    this.isKnown = true;
    this.#silence = 0;
    this.#waiting += length;
    // sandboxd sends no more than a window that is not stored: whoever does is not sandboxd.
    if (this.#waiting > 4 * WINDOW_BYTES) return this.link.connection.close();
    this.#taking = this.#taking
      .then(() => this.sink.take(() => this.#passOutput(piece)))
      .catch((error: unknown) => void (this.#failure ??= error))
      .finally(() => {
        this.#waiting -= length;
        this.#catchUp();
      });
  }

  #passOutput({ stream, offset, bytes }: Piece): void {
    const gap = offset - this.sink.position(stream);
    // The beginning of a piece may have come over the connection before.
    if (gap < 0) this.sink.output(stream, bytes.subarray(-gap));
    else if (gap > 0) this.sink.skipped(stream, gap + bytes.length, bytes);
    else this.sink.output(stream, bytes);
  }

  /** Tells sandboxd which output is stored here, and of which stream no more is kept. */
  #catchUp(): void {
    const { sink } = this;
    const { connection } = this.link;
    const stored = { stdout: sink.stored("stdout"), stderr: sink.stored("stderr") };
    if (stored.stdout > this.#acknowledged.stdout || stored.stderr > this.#acknowledged.stderr) {
      this.#acknowledged = stored;
      connection.sendIfOpen({ type: "stored", id: sink.id, ...stored });
    }
    for (const stream of STREAMS) {
      if (this.#full.has(stream) || sink.hasRoom(stream)) continue;
      this.#full.add(stream);
      connection.sendIfOpen({ type: "full", id: sink.id, stream });
    }
  }

  #tick(): void {
    if (!this.#isConnected) return;
    this.#catchUp();
    if (++this.#silence % SILENCE_TICKS !== 0) return;
    // A run may be silent for long. A connection over which no ping is answered is given up.
    this.link.connection.sendAndConfirm(RESPONSE_MS).then(
      () => (this.#silence = 0),
      () => this.#broken(),
    );
  }

  #broken(): void {
    if (!this.#isConnected) return;
    this.#isConnected = false;
    void this.#reconnectDelay();
  }

  /** After a connection has broken: pauses before the next one, or finds that the container is gone. */
  async #reconnectDelay(): Promise<void> {
    if (Date.now() - this.#connectedAt > STABLE_MS) this.#breaks = 0;
    if (this.#breaks === 0) this.#brokenAt = Date.now();
    if (++this.#breaks > MAX_BREAKS) this.#failure = sandboxUnresponsive(Date.now() - this.#brokenAt);
    else await this.sink.waitUntilEnded(this.#breaks * RECONNECT_STEP_MS);
    if (!this.link.running()) {
      await this.sink.waitUntilEnded(DOWN_MS);
      this.#failure ??= containerGone();
    }
    this.#wake();
  }
}
