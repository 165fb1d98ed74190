/** Receives a run's output and end from sandboxd, and resumes after broken connections. */
import {
  type Event,
  type Piece,
  STREAMS,
  type Stream,
  type Variables,
} from "../../container/sandboxd/protocol.ts";
import { isUnresponsive, sandboxUnresponsive } from "../shared/errors.ts";
import { type Connection, RESPONSE_MS } from "./connection.ts";
import type { ContainerLifecycle } from "./sandboxd.ts";
import { containerGone } from "./texts.ts";

export interface OutputSink {
  readonly id: string;
  /** Whether something other than sandboxd's reports has ended the run. Later reports are ignored then. */
  readonly isEnded: boolean;
  /** Whether a caller waits for the next output; undefined if the follower need not know. */
  readonly isWatched?: boolean;
  /** Waits until there is room for output, then calls `output`. */
  take(output: () => void): Promise<void>;
  output(stream: Stream, bytes: Uint8Array): void;
  /** `count` bytes were not stored, because the log is full. `last` has the last of them. */
  recordSkipped(stream: Stream, count: number, last: Uint8Array): void;
  hasRoom(stream: Stream): boolean;
  /** How many bytes of a stream the sink has received: the offset from which to resume. */
  position(stream: Stream): number;
  /** Bytes that the actor has stored, so that the sandbox need not keep them. */
  storedBytes(stream: Stream): number;
  recordPorts?(ports: readonly number[]): void;
  readonly settled: Promise<void>;
  waitUntilEnded(ms: number): Promise<void>;
}

export interface ContainerLink {
  connection: Connection;
  lifecycle: Pick<ContainerLifecycle, "isRunning" | "waitUntilReadyForRun">;
  /** The sandbox's variables; undefined if none was ever set. */
  variables: { readonly current: Variables | undefined };
}

const TICK_MS = 1000;
const SILENCE_TICKS = 10;
/** How often to check `isOver` while nothing is reported: a run can also end at its time limit. */
const OVER_CHECK_MS = 60_000;

/** How long the platform may take to report that a container has ended. */
const CONTAINER_END_REPORT_MS = 8000;
/** After this many broken connections in a row, the run is lost. */
const MAX_BREAKS = 20;
/** How long a run waits for an unreachable sandboxd. One that hangs is replaced after 15 s. */
const RECONNECT_LIMIT_MS = 60_000;
/** A connection that lasts longer resets the count of broken connections. */
const STABLE_MS = 1000;
/** The pause before the next connection grows by this for each broken connection in a row, in milliseconds. */
const RECONNECT_STEP_MS = 20;
export type FinalEvent = Extract<Event, { type: "ended" | "settled" | "unknown" | "refused" }>;

export abstract class RunFollower {
  protected readonly link: ContainerLink;
  protected readonly sink: OutputSink;
  /** Whether sandboxd has reported anything about the run, so that it has started. */
  protected isKnown = false;
  /** Whether `requestRun` has succeeded once, so that sandboxd may have started the run. */
  protected wasRequested = false;
  #breaks = 0;
  #brokenAt = 0;
  #unreachableSince: number | undefined;
  #connectedAt = Number.POSITIVE_INFINITY;
  #outcome: FinalEvent | undefined;
  #wake = () => {};
  #failure: unknown;
  #isConnected = false;
  #silentTicks = 0;
  /** Resolves when the sink has accepted all output. */
  #taking: Promise<unknown> = Promise.resolve();
  /** What the actor last reported to sandboxd over this connection: the stored bytes, and the streams whose log is full. */
  #acknowledged = { stdout: 0, stderr: 0 };
  #reportedFull = new Set<Stream>();

  constructor(link: ContainerLink, sink: OutputSink) {
    this.link = link;
    this.sink = sink;
  }

  /** Requests the run's reports over this connection, and its start if needed. */
  protected abstract requestRun(): Promise<void>;

  protected get isOver(): boolean {
    return this.sink.isEnded;
  }

  /** Waits until the sink has all output, and returns the run's last event; undefined if something else ended the run. */
  protected async waitForOutcome(): Promise<FinalEvent | undefined> {
    const unfollow = this.link.connection.follow(this.sink.id, {
      onEvent: (event) => this.#handleEvent(event),
      onPiece: (piece) => this.#receivePiece(piece),
      onBreak: () => this.#handleBreak(),
    });
    const tick = setInterval(() => this.#tick(), TICK_MS);
    try {
      // A call to a sandbox that is being destroyed may take long. If the run has ended, nothing waits for it.
      return (await Promise.race([this.#followUntilOutcome(), this.sink.settled])) ?? undefined;
    } finally {
      clearInterval(tick);
      unfollow();
    }
  }

  async #followUntilOutcome(): Promise<FinalEvent | undefined> {
    while (!this.isOver && this.#outcome === undefined) {
      if (this.#failure) throw this.#failure;
      if (!this.#isConnected) await this.#connect();
      if (this.#outcome !== undefined || this.#failure || !this.#isConnected) continue;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await Promise.race([promise, this.sink.waitUntilEnded(OVER_CHECK_MS)]);
    }
    return this.#outcome;
  }

  async #connect(): Promise<void> {
    await this.#taking;
    // The first request may wait long for a container to start. Meanwhile nothing responds to a ping, and a break is one of the
    // previous container's connection. If they counted, the run would be lost although sandboxd starts it.
    const isFirst = !this.wasRequested;
    this.#isConnected = !isFirst;
    this.#connectedAt = Number.POSITIVE_INFINITY;
    this.#silentTicks = 0;
    this.#reportedFull.clear();
    this.#acknowledged = { stdout: 0, stderr: 0 };
    try {
      await this.requestRun();
      if (isFirst) this.#isConnected = true;
      this.wasRequested = true;
      this.#unreachableSince = undefined;
      this.#connectedAt = Date.now();
      this.#catchUp();
    } catch (error) {
      this.#isConnected = false;
      // Before the first successful request, `error` says why the sandbox could not be started or reached.
      if (this.wasRequested && !this.link.lifecycle.isRunning) return await this.#reconnectDelay();
      if (!isUnresponsive(error)) throw error;
      this.#unreachableSince ??= Date.now();
      const unreachableMs = Date.now() - this.#unreachableSince;
      if (unreachableMs >= RECONNECT_LIMIT_MS) throw sandboxUnresponsive(unreachableMs);
    }
  }

  #handleEvent(event: Event): void {
    this.isKnown = true;
    this.#silentTicks = 0;
    if (event.type === "running" || event.type === "pong" || event.type === "typed") return;
    if (event.type === "listening") return this.sink.recordPorts?.(event.ports);
    void this.#end(event);
  }

  /** Ends the wait for the outcome, after the sink has accepted all earlier output. */
  async #end(outcome: FinalEvent): Promise<void> {
    await this.#taking;
    this.#outcome = outcome;
    this.#wake();
  }

  #receivePiece(piece: Piece): void {
    const { length } = piece.bytes;
    this.isKnown = true;
    this.#silentTicks = 0;
    if (!this.link.connection.admit(length)) return;
    this.#taking = this.#taking
      .then(() => this.#takePiece(piece))
      .catch((error: unknown) => void (this.#failure ??= error))
      .finally(() => {
        this.link.connection.release(length);
        this.#catchUp();
      });
  }

  async #takePiece({ bytes, offset, ...rest }: Piece): Promise<void> {
    // Nobody reads the output of an ended run.
    if (this.isOver) return;
    await this.sink.take(() => this.#passOutput({ ...rest, offset, bytes }));
  }

  #passOutput({ stream, offset, bytes }: Piece): void {
    const gap = offset - this.sink.position(stream);
    // The previous connection may have delivered the beginning of a piece. A view of the rest would keep all of it in memory.
    if (gap < 0) this.sink.output(stream, bytes.slice(-gap));
    else if (gap > 0) this.sink.recordSkipped(stream, gap + bytes.length, bytes);
    else this.sink.output(stream, bytes);
  }

  #catchUp(): void {
    const { sink } = this;
    const { connection } = this.link;
    const stored = { stdout: sink.storedBytes("stdout"), stderr: sink.storedBytes("stderr") };
    if (stored.stdout > this.#acknowledged.stdout || stored.stderr > this.#acknowledged.stderr) {
      this.#acknowledged = stored;
      connection.sendIfOpen({ type: "stored", id: sink.id, ...stored });
    }
    for (const stream of STREAMS) {
      if (this.#reportedFull.has(stream) || sink.hasRoom(stream)) continue;
      this.#reportedFull.add(stream);
      connection.sendIfOpen({ type: "full", id: sink.id, stream });
    }
  }

  #tick(): void {
    if (!this.#isConnected) return;
    this.#catchUp();
    if (++this.#silentTicks % SILENCE_TICKS !== 0) return;
    void this.#checkConnection();
  }

  /** A run may be silent for long, so only a ping without a response counts as a broken connection, or output that is not stored. */
  async #checkConnection(): Promise<void> {
    try {
      await this.link.connection.sendAndConfirm(RESPONSE_MS);
      this.#silentTicks = 0;
      // Unfinished lines of several agents may fill the window of all streams. After a new request, sandboxd sends more.
      if (!this.#hasUnstored) return;
    } catch {
      // sandboxd is unreachable.
    }
    this.#handleBreak();
  }

  get #hasUnstored(): boolean {
    return STREAMS.some((stream) => this.sink.position(stream) > this.sink.storedBytes(stream));
  }

  #handleBreak(): void {
    if (!this.#isConnected) return;
    this.#isConnected = false;
    void this.#reconnectDelay();
  }

  /** Pauses after a broken connection, or finds that the container is gone. */
  async #reconnectDelay(): Promise<void> {
    if (Date.now() - this.#connectedAt > STABLE_MS) this.#breaks = 0;
    if (this.#breaks === 0) this.#brokenAt = Date.now();
    if (++this.#breaks > MAX_BREAKS) this.#failure = sandboxUnresponsive(Date.now() - this.#brokenAt);
    else await this.sink.waitUntilEnded(this.#breaks * RECONNECT_STEP_MS);
    if (!this.link.lifecycle.isRunning) {
      await this.sink.waitUntilEnded(CONTAINER_END_REPORT_MS);
      this.#failure ??= containerGone();
    }
    this.#wake();
  }
}
