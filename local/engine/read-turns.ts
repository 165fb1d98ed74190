/**
 * Lets connections with much data read in turns. Node reads from every connection that has data before it does anything else, 64 KiB from
 * each. From WebSockets, the engine even read all data before it did anything else.
 */
import type { Duplex } from "node:stream";

/**
 * How many bytes all connections may read before other work of the thread gets its turn. Moving them takes about a millisecond. Seven
 * connections together read less than this, so they never wait.
 */
const BYTES_AT_ONCE = 524_288;
/** The most that a connection reads at once: the size of buffers in Node's streams. */
const READ_BYTES = 65_536;

class ReadTurns {
  /** The waiting connections of each group. A group shares a rate limit, such as all tunnels of a sandbox. */
  readonly #waiting = new Map<object, Set<Duplex>>();
  /** The groups of the waiting connections. */
  readonly #groups = new WeakMap<Duplex, object>();
  #bytes = 0;
  #isScheduled = false;

  /** Counts a read. Pauses the connection until its turn if there were too many bytes, or if others of its group wait. */
  take(socket: Duplex, bytes: number, group: object): void {
    this.#bytes += bytes;
    this.#schedule();
    // Node has resumed a waiting connection, and another limit counts it. In the groups of both limits, it would never leave the first
    // one: the connections behind it waited without end, and the thread never rested.
    if (this.isWaiting(socket)) return void socket.pause();
    const others = this.#waiting.get(group);
    if ((this.#bytes <= BYTES_AT_ONCE && others === undefined) || socket.isPaused()) return;
    if (others === undefined) this.#waiting.set(group, new Set([socket]));
    else others.add(socket);
    this.#groups.set(socket, group);
    socket.pause();
  }

  isWaiting(socket: Duplex): boolean {
    return this.#groups.has(socket);
  }

  /** Returns whether the connection was waiting. */
  leave(socket: Duplex): boolean {
    const group = this.#groups.get(socket);
    if (group === undefined) return false;
    this.#groups.delete(socket);
    const waiting = this.#waiting.get(group);
    waiting?.delete(socket);
    if (waiting?.size === 0) this.#waiting.delete(group);
    return true;
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#bytes = 0;
      this.#resume();
      if (this.#waiting.size > 0) this.#schedule();
    });
  }

  /** Resumes connections of all groups, one of each after another. */
  #resume(): void {
    for (let left = BYTES_AT_ONCE / READ_BYTES; left > 0 && this.#waiting.size > 0; left--) {
      const [[group, waiting] = []] = this.#waiting;
      const [socket] = waiting ?? [];
      if (group === undefined || waiting === undefined || socket === undefined) return;
      this.leave(socket);
      // The group moves to the end.
      if (this.#waiting.delete(group)) this.#waiting.set(group, waiting);
      socket.resume();
    }
  }
}

/** One for all sandboxes, because they share the thread. */
export const readTurns = new ReadTurns();
