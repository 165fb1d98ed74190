/**
 * Divides this process's thread among principals. The process works on a limited number of a principal's calls at once. The
 * others wait in the order in which they arrived, which costs almost nothing. So only a few calls of another principal are served
 * before a call, however many calls that principal sends. Measured while 1,000 connections of a principal repeated
 * `list_sandboxes`: a neighbour's call took up to 2.8 seconds without turns, and 0.2 seconds with them.
 *
 * On Cloudflare, each isolate counts by itself. There `RATE_LIMITER` limits the calls of a principal across isolates.
 */

import { Pace } from "../../container/sandboxd/pace.ts";
import { tooManyCalls } from "./errors.ts";
import { MAX_PACE_MS, mayWait, pauseRefused, REQUEST_PACE, waitForPace } from "./open-requests.ts";
import { json, type Refusal } from "./responses.ts";
import { CALL_MS, pause } from "./timers.ts";
import { Turns, TurnsByID } from "./turns.ts";

/** Measured with 8, while 48 connections repeated `get_result` with pages of a log: a neighbour's call took 86 ms (median), and 58 with 4. */
const AT_ONCE = 4;

/**
 * The pace of a principal's answers and JSON bodies, in characters. Each takes the thread up to 0.07 µs. After too many,
 * the next calls begin later. Each tool and resource limits its own answers, and this limits what several large ones cost others.
 * Measured while 20 connections repeated a read of 12 MB: a neighbour's call took 445 ms (median) without this, and 10 ms with it.
 */
const ANSWER_PACE = { burst: 8 * 1024 * 1024, perSecond: 8 * 1024 * 1024 };
/** Together with the longest wait for a run, less than the 60 seconds after which common clients give up. */
const MAX_ANSWER_PAUSE_MS = 5000;

/** The most calls of a principal that wait: as many as `RequestMemory` allows at `/mcp`. */
const MAX_WAITING = 2048;

/**
 * A turn ends after this many rounds of a timer, even if its call has not ended. If the thread is idle, this is soon: the call
 * only waits, for example for a run or for a container. If the thread is busy, its timers are late, so the turn lasts longer.
 * Because every turn ends, calls that wait for each other cannot block each other.
 */
const ROUNDS = 5;
const ROUND_MS = 5;

export const tooManyWait = () => tooManyCalls(AT_ONCE);

/** The refusal of a request that had no turn in time. */
export const noTurn = (): Refusal => ({
  reason: "rate_limited",
  response: json({ error: tooManyWait().text }, 429),
});

/** Calls that take almost no time need not wait for a turn, so only their pace lets the thread serve others. */
class PrincipalTurns extends Turns {
  readonly pace = new Pace(REQUEST_PACE);
  readonly answers = new Pace(ANSWER_PACE);

  override get isUnused(): boolean {
    return super.isUnused && this.pace.isFull && this.answers.isFull;
  }
}

/**
 * If a call waits in vain, turns end that have lasted for longer: only those whose request the platform has ended. Measured when all
 * turns ended, also those in a pause after large answers: of 900 calls, 600 began at once, and a neighbour's call took 9 s.
 */
const LONGEST_TURN_MS = 2 * MAX_ANSWER_PAUSE_MS;

const principals = new TurnsByID(() => new PrincipalTurns(AT_ONCE), LONGEST_TURN_MS);

/**
 * Counts what the server will read and parse for a principal in the pace of its answers, and waits for this pace.
 * @param size in characters or bytes
 */
export async function countBefore(principalID: string, size: number): Promise<void> {
  const ms = principals.of(principalID).answers.take(size);
  if (ms > 0) await pause(Math.min(ms, MAX_ANSWER_PAUSE_MS));
}

/** The turns of one request's calls. */
export class RequestTurns {
  readonly #principalID: string;
  readonly client: AbortSignal | undefined;
  /** The turn in which the server reads the request. The request's first call uses it too. */
  #first: Turn | undefined;
  /** How many further calls of the request are already counted in the principal's pace. */
  #counted = 0;

  /**
   * @param client aborts when the client disconnects. The runtime may then end the request without running its `catch` and
   * `finally` blocks. Undefined in a Durable Object
   */
  constructor(principalID: string, client?: AbortSignal) {
    this.#principalID = principalID;
    this.client = client;
  }

  /** Waits until the server may read the request. @returns false if that takes too long or the client disconnects */
  async begin(): Promise<boolean> {
    if (this.#first?.isOver !== false) this.#first = await this.#take();
    return this.#first !== undefined;
  }

  /**
   * Counts a batch's further calls in the principal's pace, and waits for it. So a batch is refused as a whole, which costs much
   * less than a refusal of each call. Measured with batches of 100 calls, 200 a second, from clients that disconnected at once: a
   * neighbour's call took 1.1 seconds.
   * @returns false if the wait is too long
   */
  async admit(more: number): Promise<boolean> {
    const id = this.#principalID;
    const isAdmitted = await waitForPace(principals.of(id).pace, more, MAX_PACE_MS, id);
    if (isAdmitted) this.#counted = more;
    return isAdmitted;
  }

  /** Counts an answer or a body in their pace. */
  countAnswer(chars: number): void {
    principals.of(this.#principalID).answers.take(chars);
  }

  /** Ends the turn of `begin`, unless a call uses it. */
  end(): void {
    this.#first?.end();
  }

  /** Does the work of a call in a turn. @throws {ToolError} `quota_exceeded` if the call had to wait too long */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const first = this.#first;
    this.#first = undefined;
    const turn = first?.isOver === false ? first : await this.#take();
    if (!turn) throw tooManyWait();
    try {
      return await work();
    } finally {
      turn.end();
    }
  }

  async #take(): Promise<Turn | undefined> {
    const [id, client] = [this.#principalID, this.client];
    const turns = principals.of(id);
    // About as many calls wait for the pace as for a turn. Refusals do not use the pace of open requests: a principal could delay the
    // open requests of everybody.
    if (turns.waiting >= MAX_WAITING || !mayWait(id)) {
      await pauseRefused(id);
      return undefined;
    }
    if (this.#counted > 0) this.#counted -= 1;
    else if (!(await waitForPace(turns.pace, 1, MAX_PACE_MS, id))) return undefined;
    const mustWait = turns.isFull;
    const end = await principals.take(id, CALL_MS, client);
    if (!end) return undefined;
    await countBefore(id, 0);
    if (client?.aborted) return undefined;
    const turn = new Turn(end);
    // The runtime reads from connections when nothing else is ready. So the pause lets it read the requests of others.
    if (mustWait) await pause(0);
    return turn;
  }
}

class Turn {
  readonly #end: () => void;
  readonly #timer: ReturnType<typeof setInterval>;
  #rounds = 0;
  isOver = false;

  constructor(end: () => void) {
    this.#end = end;
    this.#timer = setInterval(() => {
      if (++this.#rounds === ROUNDS) this.end();
    }, ROUND_MS);
  }

  end(): void {
    clearInterval(this.#timer);
    this.isOver = true;
    this.#end();
  }
}
