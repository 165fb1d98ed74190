/**
 * Follows one connection of the control protocol (capnweb's messages, one JSON array each) and says when the sandbox
 * sends what the Worker would have to keep, or never asked for. User code can take the control server's place, and
 * capnweb bounds nothing: it keeps every value that is pushed, and every piece of a stream that nobody reads.
 */

/** Longer than anything that the Worker asks for. The longest is the document of a kernel's run, with 12 MiB of images. */
export const maxMessageBytes = 16 * 1024 * 1024;

/** What the sandbox may have sent that the Worker has neither taken nor been told to forget. */
const maxHeld = { bytes: 32 * 1024 * 1024, messages: 4096, stubs: 256 };

const head =
  /^\["(push|stream|pipe|pull|resolve|reject|release|abort)"(?:\]|,(?:(-?\d{1,9})(?:,(\d{1,9})\])?)?)/;

/** Arrays and objects in one message: a byte of JSON that opens one takes twenty in the Worker. */
const maxContainers = 100_000;

/** First words of arrays by which capnweb makes something dear, and the control server nothing. */
const unused = new Set(["bigint", "blob", "headers", "remap", "request", "response"]);

/** Those by which a message refers to what its sender keeps, and the Worker keeps an entry for. */
const references = new Set(["export", "promise"]);

export class ControlGuard {
  /** What the sandbox sent, by the number that both ends count along; a size in bytes. 0 is the protocol's own. */
  readonly #held = new Map<number, { bytes: number; stream: boolean }>();
  #sent = 0;
  #bytes = 0;
  #stubs = 0;
  /** What the Worker waits for. */
  readonly #asked = new Set<number>();
  #workerSent = 0;

  /** Why a message of the sandbox's breaks the bounds, in words that follow "it"; undefined when it does not. */
  fromSandbox(message: Buffer): string | undefined {
    const [kind, id] = kindOf(message);
    const scanned = scan(message);
    if (typeof scanned === "string") return scanned;
    this.#stubs += scanned.references;
    if (this.#stubs > maxHeld.stubs) return `keeps the Worker to more than ${maxHeld.stubs} references`;
    switch (kind) {
      case "push":
        if (!message.subarray(0, 20).toString("latin1").startsWith('["push",["pipeline",'))
          return "pushed what is no call";
        return this.#hold(message.length, false);
      case "stream":
        return this.#hold(message.length, true);
      case "pipe":
        return this.#hold(message.length, false);
      case "resolve":
      case "reject":
        return this.#asked.delete(id) ? undefined : "answered what it was not asked";
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
    // Every piece of a stream is answered.
    else if (kind === "stream") this.#asked.add(++this.#workerSent);
    else if (kind === "pull") this.#asked.add(id);
    else if (kind === "release") this.#stubs = Math.max(0, this.#stubs - 1);
    else if ((kind === "resolve" || kind === "reject") && this.#held.get(id)?.stream === true)
      this.#forget(id);
  }

  #hold(bytes: number, stream: boolean): string | undefined {
    this.#held.set(++this.#sent, { bytes, stream });
    this.#bytes += bytes;
    if (this.#bytes > maxHeld.bytes) return `sent ${this.#bytes} bytes ahead of what the Worker takes`;
    if (this.#held.size > maxHeld.messages)
      return `sent ${this.#held.size} messages ahead of what the Worker takes`;
    return undefined;
  }

  #forget(id: number): void {
    this.#bytes -= this.#held.get(id)?.bytes ?? 0;
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

/** Looks through a message as `JSON.stringify` writes it, without making anything of it; what is written otherwise is refused. */
function scan(message: Buffer): { references: number } | string {
  let containers = 0;
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
    } else if (byte === bracket || byte === brace) {
      containers += 1;
      if (containers > maxContainers)
        return `sent more than ${maxContainers} arrays and objects in one message`;
    }
  }
  return { references: found };
}
