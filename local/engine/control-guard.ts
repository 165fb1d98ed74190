/**
 * Follows one connection of the control protocol (capnweb's messages, one JSON array each) and says when the sandbox
 * sends what the Worker would have to keep, or never asked for. User code can take the control server's place, and
 * capnweb bounds nothing: it keeps every value that is pushed, and every piece of a stream that nobody reads.
 */

/** Longer than anything that the Worker asks for. The longest is the document of a kernel's run, with 12 MiB of images. */
export const maxMessageBytes = 16 * 1024 * 1024;

/** What the sandbox may have sent on one connection that the Worker has neither taken nor been told to forget. */
const maxHeld = { size: 32 * 1024 * 1024, messages: 4096, stubs: 256 };

/** Size of the answers that all connections of a sandbox may have on their way into the Worker; more wait. */
const maxAnswers = 32 * 1024 * 1024;

const head =
  /^\["(push|stream|pipe|pull|resolve|reject|release|abort)"(?:\]|,(?:(-?\d{1,9})(?:,(\d{1,9})\])?)?)/;

/**
 * Values in one message: parsing costs by the value and not by the byte, and a byte of JSON
 * can take twenty in the Worker. What is long in a true answer, a file or a run's document, is one string.
 */
const maxValues = 20_000;

/** What a value counts as in the bounds of bytes: a hundred thousand of them take the Worker up to a tenth of a second. */
const bytesPerValue = 256;

/** First words of arrays by which capnweb makes something dear, and the control server nothing. */
const unused = new Set(["bigint", "blob", "headers", "remap", "request", "response"]);

/** Those by which a message refers to what its sender keeps, and the Worker keeps an entry for. */
const references = new Set(["export", "promise"]);

/** The answers of one sandbox, on all of its connections, that the Worker has not said it has taken. */
export class AnswersInFlight {
  size = 0;

  get tooMany(): boolean {
    return this.size >= maxAnswers;
  }
}

export class ControlGuard {
  /** What the sandbox sent, by the number that both ends count along. 0 is the protocol's own. */
  readonly #held = new Map<number, { size: number; stream: boolean }>();
  #sent = 0;
  #size = 0;
  #stubs = 0;
  /** What the Worker waits for, and whether it is going to release the answer. */
  readonly #asked = new Map<number, boolean>();
  /** Sizes of the answers that it has not released. */
  readonly #answers = new Map<number, number>();
  readonly #inFlight: AnswersInFlight;
  #workerSent = 0;

  constructor(inFlight: AnswersInFlight) {
    this.#inFlight = inFlight;
  }

  /** Why a message of the sandbox's breaks the bounds, in words that follow "it"; its size when it does not. */
  fromSandbox(message: Buffer): string | number {
    const scanned = scan(message);
    if (typeof scanned === "string") return scanned;
    this.#stubs += scanned.references;
    if (this.#stubs > maxHeld.stubs) return `keeps the Worker to more than ${maxHeld.stubs} references`;
    const size = message.length + scanned.values * bytesPerValue;
    return this.#take(message, size) ?? size;
  }

  #take(message: Buffer, size: number): string | undefined {
    const [kind, id] = kindOf(message);
    switch (kind) {
      case "push":
        if (!message.subarray(0, 20).toString("latin1").startsWith('["push",["pipeline",'))
          return "pushed what is no call";
        return this.#hold(size, false);
      case "stream":
        return this.#hold(size, true);
      case "pipe":
        return this.#hold(size, false);
      case "resolve":
      case "reject":
        return this.#answer(id, size);
      case "release":
        this.#forget(id);
        return undefined;
      case "pull":
      case "abort":
        return undefined;
      default:
        return "sent what is no message of the control protocol";
    }
  }

  /** What the Worker says is believed. */
  fromWorker(message: Buffer): void {
    const [kind, id] = kindOf(message);
    if (kind === "push" || kind === "pipe") this.#workerSent += 1;
    // Every piece of a stream is answered, and the answer is not released.
    else if (kind === "stream") this.#asked.set(++this.#workerSent, false);
    else if (kind === "pull") this.#asked.set(id, true);
    else if (kind === "release") {
      this.#stubs = Math.max(0, this.#stubs - 1);
      // Released before it is answered, when the call is given up.
      if (this.#asked.has(id)) this.#asked.set(id, false);
      this.#release(id);
    } else if ((kind === "resolve" || kind === "reject") && this.#held.get(id)?.stream === true)
      this.#forget(id);
  }

  /** The connection is over. */
  close(): void {
    for (const id of this.#answers.keys()) this.#release(id);
  }

  #answer(id: number, size: number): string | undefined {
    const isReleased = this.#asked.get(id);
    if (!this.#asked.delete(id)) return "answered what it was not asked";
    if (isReleased === true) {
      this.#answers.set(id, size);
      this.#inFlight.size += size;
    }
    return undefined;
  }

  #release(id: number): void {
    this.#inFlight.size -= this.#answers.get(id) ?? 0;
    this.#answers.delete(id);
  }

  #hold(size: number, stream: boolean): string | undefined {
    this.#held.set(++this.#sent, { size, stream });
    this.#size += size;
    if (this.#size > maxHeld.size) return `sent too much ahead of what the Worker takes`;
    if (this.#held.size > maxHeld.messages)
      return `sent ${this.#held.size} messages ahead of what the Worker takes`;
    return undefined;
  }

  #forget(id: number): void {
    this.#size -= this.#held.get(id)?.size ?? 0;
    this.#held.delete(id);
  }
}

function kindOf(message: Buffer): [kind: string | undefined, id: number] {
  const match = head.exec(message.subarray(0, 64).toString("latin1"));
  return [match?.[1], Number(match?.[2] ?? 0)];
}

const quote = 0x22;
const backslash = 0x5c;
const bracket = 0x5b;
const brace = 0x7b;
const comma = 0x2c;

/** Looks through a message as `JSON.stringify` writes it, without making anything of it; what is written otherwise is refused. */
function scan(message: Buffer): { references: number; values: number } | string {
  let values = 0;
  let found = 0;
  for (let at = 0; at < message.length; at++) {
    const byte = message[at] ?? 0;
    if (byte <= 0x20) return "sent JSON that is written unlike the control server's";
    if (byte === quote) {
      const start = at + 1;
      for (at = start; at < message.length && message[at] !== quote; at++)
        if (message[at] === backslash) at++;
      if (message[start - 2] !== bracket || at - start > 16) continue;
      const word = message.toString("latin1", start, at);
      if (unused.has(word)) return `sent a ${word}, which no control server does`;
      if (references.has(word)) found += 1;
      // An escape could spell any word.
      if (word.includes("\\u")) return "sent JSON that is written unlike the control server's";
    } else if (byte === bracket || byte === brace || byte === comma) {
      // A value stands behind each of these.
      values += 1;
      if (values > maxValues) return `sent more than ${maxValues} values in one message`;
    }
  }
  return { references: found, values };
}
