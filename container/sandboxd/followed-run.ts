/** A run of a command or code as its listener sees it: two output streams, and an end. */
import { portsOf } from "./listening.ts";
import { type Event, STREAMS, type Stream } from "./protocol.ts";
import { OutputStream } from "./stream.ts";

/** The pause between messages with the last bytes of a stream whose log is full, in milliseconds. */
const TAIL_MS = 1000;

export interface Listener {
  onEvent(event: Event): void;
  onPiece(id: string, stream: Stream, offset: number, bytes: Buffer): void;
}

export abstract class FollowedRun {
  readonly id: string;
  readonly streams: Record<Stream, OutputStream>;
  #listener: Listener | undefined;
  readonly #timers = new Set<NodeJS.Timeout>();
  #isSettled = false;
  #isClosed = false;
  protected ports: number[] = [];
  #hasReportedPorts = false;

  constructor(id: string, pathOf: (name: Stream) => string, mark?: Buffer) {
    this.id = id;
    const stream = (name: Stream) =>
      new OutputStream(
        name,
        pathOf(name),
        mark,
        () => this.settle(),
        (hasRun) => this.onCopierEnd(name, hasRun),
      );
    this.streams = { stdout: stream("stdout"), stderr: stream("stderr") };
  }

  protected onCopierEnd(_name: Stream, _hasRun: boolean): void {}

  protected abstract end(): Event | undefined;

  follow(listener: Listener, stdout: number, stderr: number): void {
    this.#isSettled = false;
    if (this.end() === undefined) listener.onEvent({ type: "running", id: this.id });
    this.listen(listener, stdout, stderr);
    // An earlier report of ports may have been lost with its connection.
    if (this.#hasReportedPorts) this.#reportPorts();
    this.settle();
  }

  /** Like `follow`, for a run that this listener has just started. The listener gets no event `running`. */
  listen(listener: Listener, stdout = 0, stderr = 0): void {
    // The listener is set last. Otherwise the first stream could report the run's end before the second stream is followed.
    this.#listener = undefined;
    const from = { stdout, stderr };
    for (const name of STREAMS)
      this.streams[name].follow(from[name], (offset, bytes) =>
        listener.onPiece(this.id, name, offset, bytes),
      );
    this.#listener = listener;
  }

  unfollow(listener: Listener): void {
    if (this.#listener !== listener) return;
    this.#listener = undefined;
    for (const name of STREAMS) this.streams[name].unfollow();
  }

  acknowledge(stdout: number, stderr: number): void {
    this.streams.stdout.acknowledge(stdout);
    this.streams.stderr.acknowledge(stderr);
  }

  keepOnlyTail(stream: Stream): void {
    this.streams[stream].keepOnlyTail();
    this.after(TAIL_MS, () => this.#tail(stream));
  }

  #tail(stream: Stream): void {
    this.streams[stream].tail();
    if (this.end() === undefined) this.after(TAIL_MS, () => this.#tail(stream));
  }

  protected settle(): void {
    const end = this.end();
    const isSent = STREAMS.every((name) => this.streams[name].isDelivered);
    if (end === undefined || this.#isSettled || !isSent || this.#listener === undefined) return;
    this.#isSettled = true;
    this.#listener.onEvent(end);
  }

  /** Reports the ports of the run's programs, from a scan at most `ageMs` old, if they have changed. */
  protected checkPorts(ageMs: number): void {
    const ports = portsOf(this.id, ageMs);
    if (ports.join() === this.ports.join()) return;
    this.ports = ports;
    this.#reportPorts();
  }

  #reportPorts(): void {
    this.#hasReportedPorts = true;
    this.#listener?.onEvent({ type: "listening", id: this.id, ports: this.ports });
  }

  protected after(ms: number, work: () => void): void {
    if (this.#isClosed) return;
    const fire = () => {
      this.#timers.delete(timer);
      work();
    };
    // Node fires a timer of more than 2^31 - 1 milliseconds immediately.
    const timer = setTimeout(fire, Math.min(ms, 2 ** 31 - 1));
    this.#timers.add(timer);
  }

  protected clearTimers(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  close(): void {
    this.#isClosed = true;
    this.clearTimers();
    for (const name of STREAMS) this.streams[name].close();
  }
}
