/** What is followed of a run, whoever runs it: its two streams of output, and its end. */
import { type Event, STREAMS, type Stream } from "./protocol.ts";
import { OutputStream } from "./stream.ts";

/** How often the end of an output whose log is full is sent, milliseconds. */
const TAIL_MS = 1000;

/** Who is told of a run. */
export interface Listener {
  event(event: Event): void;
  piece(id: string, stream: Stream, offset: number, bytes: Buffer): void;
}

export abstract class Followed {
  readonly id: string;
  readonly streams: Record<Stream, OutputStream>;
  #listener: Listener | undefined;
  #timers: NodeJS.Timeout[] = [];
  #isSettled = false;

  /** @param mark what ends the output, where it comes from a pipe */
  constructor(id: string, pathOf: (name: Stream) => string, mark?: Buffer) {
    this.id = id;
    const stream = (name: Stream) =>
      new OutputStream(
        name,
        pathOf(name),
        mark,
        () => this.settle(),
        () => this.stopped(name),
      );
    this.streams = { stdout: stream("stdout"), stderr: stream("stderr") };
  }

  /** The copying of a stream has ended. */
  protected stopped(_name: Stream): void {}

  /** What the run's listener is told when it has all output; undefined as long as the run goes on. */
  protected abstract end(): Event | undefined;

  /** Tells of the output from these offsets on, and of the end. */
  follow(listener: Listener, stdout: number, stderr: number): void {
    this.#isSettled = false;
    if (this.end() === undefined) listener.event({ type: "running", id: this.id });
    this.listen(listener, stdout, stderr);
    this.settle();
  }

  /** As `follow` of a run that has just been started, which needs no word of that. */
  listen(listener: Listener, stdout = 0, stderr = 0): void {
    // The end is told when both streams have begun to be followed.
    this.#listener = undefined;
    const from = { stdout, stderr };
    for (const name of STREAMS)
      this.streams[name].follow(from[name], (offset, bytes) => listener.piece(this.id, name, offset, bytes));
    this.#listener = listener;
  }

  unfollow(listener: Listener): void {
    if (this.#listener !== listener) return;
    this.#listener = undefined;
    for (const name of STREAMS) this.streams[name].unfollow();
  }

  stored(stdout: number, stderr: number): void {
    this.streams.stdout.stored(stdout);
    this.streams.stderr.stored(stderr);
  }

  full(stream: Stream): void {
    this.streams[stream].full();
    this.after(TAIL_MS, () => this.#tail(stream));
  }

  #tail(stream: Stream): void {
    this.streams[stream].tail();
    if (this.end() === undefined) this.after(TAIL_MS, () => this.#tail(stream));
  }

  /** Once all is known and all is sent, says so. */
  protected settle(): void {
    const end = this.end();
    const isSent = STREAMS.every((name) => this.streams[name].isDelivered);
    if (end === undefined || this.#isSettled || !isSent || this.#listener === undefined) return;
    this.#isSettled = true;
    this.#listener.event(end);
  }

  protected tell(event: Event): void {
    this.#listener?.event(event);
  }

  protected after(ms: number, work: () => void): void {
    // Node's timers hold no more than 2^31 milliseconds.
    this.#timers.push(setTimeout(work, Math.min(ms, 2 ** 31 - 1)));
  }

  protected clearTimers(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = [];
  }

  close(): void {
    this.clearTimers();
    for (const name of STREAMS) this.streams[name].close();
  }
}
