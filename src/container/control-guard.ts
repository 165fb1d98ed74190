/**
 * Checks one connection of the control protocol (capnweb: JSON arrays) for messages that the Worker did not request or would
 * have to store. User code can replace the control server, and capnweb has no limits. The SDK has none either: it stores
 * everything that the sandbox passes to its callbacks. The control server uses no streams, so they are refused.
 */

import type { Pace } from "../../container/sandboxd/pace.ts";
import { SANDBOX_JSON, countDigits } from "../shared/bounded.ts";
import { BROKE_CONTROL } from "./texts.ts";

/** The longest message, in characters. A kernel's document has up to 5 million, and escaping can double them. */
const maxMessageLength = 12 * 1024 * 1024;
/** How much the Worker may have to store for one connection: bytes, calls, and references to values in the sandbox. */
const maxStored = { size: 32 * 1024 * 1024, calls: 4096, stubs: 256 };
/** The most bytes of results that the Worker has not released, over all connections of a sandbox. */
const maxReplies = 32 * 1024 * 1024;

const head = /^\["(push|pull|resolve|reject|release|abort)",(?:(-?\d{1,9})(?=[,\]])(?:,(\d{1,9})\])?)?/;
/** The start of a call of a callback, which has a negative number. */
const callbackCall = /^\["push",\["pipeline",(-\d{1,9}),/;
/**
 * The start of a result, or of a call of a callback, up to its value or its arguments. Only these messages may be longer than
 * maxErrorLength.
 */
const longStart = /^\["(?:resolve",\d{1,9},|push",\["pipeline",-\d{1,9},\[(?:"\w{1,64}")?\],\[)/;
const callEnd = "]]]";
/** A value that is not JSON. capnweb writes it as an array that begins with a word. */
const notJSON = /\["(?:undefined|-?inf|nan|date|export|promise)"(?:,(?:null|-?[\d.e+]{1,24}))?\]/y;
const exported = /\["export",(-\d+)\]/g;

/**
 * The most values in one message. A byte of JSON can take twenty bytes of the Worker's memory. Real results have few values: long
 * data in them is one string.
 */
const maxValues = SANDBOX_JSON.values;
/** The most short strings of digits on a connection. They can make JSON.parse slow (bounded.ts), and the control server sends none. */
const maxDigits = 100;
/** The longest message with an error, in characters. The SDK parses the text of an error as JSON, so other limits do not apply to it. */
const maxErrorLength = 64 * 1024;
/**
 * The text of an error that only the Worker's end of a connection makes. The SDK reads the number after it with a regular expression:
 * 64,000 digits and a line feed took it 5 seconds.
 */
const closedText = "Peer closed WebSocket";
/** How many values take the Worker as long as a short message. A run of code has about eight short messages, with 60 values together. */
const VALUES_OF_A_MESSAGE = 10;
/** How many bytes each value adds to a message's size. The Worker takes up to 0.1 s for a hundred thousand values. */
const bytesPerValue = 256;
/** Types of capnweb that take much time to build and that the control server never sends. */
const unused = new Set(["bigint", "blob", "headers", "readable", "remap", "request", "response", "writable"]);
/**
 * Types that refer to a value of the Worker. The control server sends them only where a call begins, at `callAt`. capnweb also makes calls
 * inside of values and instead of an error, which nothing would count, and of the SDK's main object.
 */
const used = new Set(["import", "pipeline"]);
const callAt = '["push",["'.length;
/** Types that refer to a value of the sender. The Worker keeps an entry for each. */
const references = new Set(["export", "promise"]);

export class RepliesInFlight {
  size = 0;

  get isFull(): boolean {
    return this.size >= maxReplies;
  }
}

/** The data that the Worker stores until the sandbox has responded to a request and has released all the request's callbacks. */
interface Stored {
  size: number;
  /** How many of these are not released: the request and each of its callbacks. */
  held: number;
}

export class ControlGuard {
  /** The keys are the numbers of the Worker's requests, and the negative numbers of their callbacks. */
  readonly #stored = new Map<number, Stored>();
  /**
   * The numbers of the sandbox's calls that it has not released. Messages do not contain these numbers: both ends count the calls
   * from 1.
   */
  readonly #unreleased = new Set<number>();
  #sent = 0;
  #size = 0;
  #stubs = 0;
  #digits = 0;
  /** The Worker's pending requests by number, and whether the Worker will release the result. */
  readonly #requests = new Map<number, boolean>();
  readonly #replySizes = new Map<number, number>();
  readonly #inFlight: RepliesInFlight;
  readonly #pace: Pace | undefined;
  #workerSent = 0;

  /** @param pace the most messages in a second; undefined if something else limits them */
  constructor(inFlight: RepliesInFlight, pace?: Pace) {
    this.#inFlight = inFlight;
    this.#pace = pace;
  }

  /** Returns the size of a sandbox's message. If the message breaks a limit, returns the reason, as words that follow "it". */
  fromSandbox(message: string): string | number {
    if (message.length > maxMessageLength) return BROKE_CONTROL.long(maxMessageLength);
    const scanned = scan(message);
    if (typeof scanned === "string") return scanned;
    const cost = Math.max(1, scanned.values / VALUES_OF_A_MESSAGE);
    if (this.#pace?.tryTake(cost) === false) return BROKE_CONTROL.flood;
    this.#stubs += scanned.references;
    if (this.#stubs > maxStored.stubs) return BROKE_CONTROL.references(maxStored.stubs);
    const first = headOf(message);
    const isError = first.kind === "reject" || first.kind === "abort";
    if (isError && message.length > maxErrorLength) return BROKE_CONTROL.longError(maxErrorLength);
    if (message.length > maxErrorLength && !isReadable(message)) return BROKE_CONTROL.notMessage;
    if (isError && message.includes(closedText)) return BROKE_CONTROL.closedText;
    this.#digits += scanned.digits;
    // The quotes of JSON in a text are escaped.
    if (isError) this.#digits += countDigits(message.replaceAll("\\", ""));
    if (this.#digits > maxDigits) return BROKE_CONTROL.digits(maxDigits);
    const size = message.length * scanned.charBytes + scanned.values * bytesPerValue;
    return this.#trackSandbox(message, first, size) ?? size;
  }

  #trackSandbox(message: string, { kind, id, count }: Head, size: number): string | undefined {
    switch (kind) {
      case "push":
        return this.#addCall(message, size);
      case "resolve":
      case "reject":
        return this.#addReply(id, size);
      case "release":
        // With any other count, a release has no effect in the Worker, or ends the connection.
        if (count !== 1) return undefined;
        if (id < 0) this.#drop(id);
        else this.#unreleased.delete(id);
        return undefined;
      case "pull":
      case "abort":
        return undefined;
      default:
        return BROKE_CONTROL.notMessage;
    }
  }

  /** Tracks a message of the Worker, which is trusted. */
  fromWorker(message: string): void {
    const { kind, id } = headOf(message);
    if (kind === "push") {
      const callbacks = Array.from(message.matchAll(exported), ([, number]) => Number(number));
      const stored = { size: 0, held: 1 + callbacks.length };
      for (const number of [++this.#workerSent, ...callbacks]) this.#stored.set(number, stored);
    } else if (kind === "pull") this.#requests.set(id, true);
    else if (kind === "release") {
      this.#stubs = Math.max(0, this.#stubs - 1);
      // The Worker releases an abandoned call before its result arrives.
      if (this.#requests.has(id)) this.#requests.set(id, false);
      this.#release(id);
    }
  }

  /** How many bytes the Worker stores at most: for this connection, and for results of all connections that share `inFlight`. */
  get stored(): number {
    return this.#size + this.#inFlight.size;
  }

  close(): void {
    for (const id of this.#replySizes.keys()) this.#release(id);
  }

  #addReply(id: number, size: number): string | undefined {
    const isReleased = this.#requests.get(id);
    if (!this.#requests.delete(id)) return BROKE_CONTROL.notAsked;
    this.#drop(id);
    if (isReleased === true) {
      this.#replySizes.set(id, size);
      this.#inFlight.size += size;
    }
    return undefined;
  }

  #release(id: number): void {
    this.#inFlight.size -= this.#replySizes.get(id) ?? 0;
    this.#replySizes.delete(id);
  }

  #addCall(message: string, size: number): string | undefined {
    const [, callback] = callbackCall.exec(message.slice(0, 64)) ?? [];
    const stored = this.#stored.get(Number(callback));
    if (stored === undefined) return BROKE_CONTROL.notCall;
    stored.size += size;
    this.#size += size;
    this.#unreleased.add(++this.#sent);
    if (this.#size > maxStored.size) return BROKE_CONTROL.stored;
    if (this.#unreleased.size > maxStored.calls) return BROKE_CONTROL.unreleased(this.#unreleased.size);
    return undefined;
  }

  #drop(id: number): void {
    const stored = this.#stored.get(id);
    this.#stored.delete(id);
    if (stored !== undefined && --stored.held === 0) this.#size -= stored.size;
  }
}

interface Head {
  kind: string | undefined;
  id: number;
  count: number;
}

function headOf(message: string): Head {
  const match = head.exec(message.slice(0, 64));
  return { kind: match?.[1], id: Number(match?.[2] ?? 0), count: Number(match?.[3] ?? 0) };
}

const isDigits = /^\d+$/;
const quote = 0x22;
const backslash = 0x5c;
const letterU = 0x75;
const digitOne = 0x31;
const bracket = 0x5b;
const brace = 0x7b;
const closingBracket = 0x5d;
const closingBrace = 0x7d;
const comma = 0x2c;

/**
 * Whether capnweb can read a long message without an error. The text of such an error repeats the message several times: one message
 * of 12 MiB took up to two seconds and 300 MB.
 */
function isReadable(message: string): boolean {
  const [start] = longStart.exec(message.slice(0, 128)) ?? [];
  if (start === undefined) return false;
  const end = start.endsWith("[") ? callEnd : "]";
  /** The objects and arrays around `at`. capnweb writes each array inside another one: `[[1,2]]`. */
  const open: number[] = [];
  for (let at = start.length; at < message.length; at++) {
    const code = message.charCodeAt(at);
    if (code === quote) {
      while (++at < message.length && message.charCodeAt(at) !== quote)
        if (message.charCodeAt(at) === backslash) at++;
    } else if (code === bracket && message.charCodeAt(at + 1) === bracket) {
      open.push(bracket);
      at++;
    } else if (code === bracket) {
      notJSON.lastIndex = at;
      if (!notJSON.test(message)) return false;
      at = notJSON.lastIndex - 1;
    } else if (code === brace) open.push(brace);
    else if (code === closingBrace) {
      if (open.pop() !== brace) return false;
    } else if (code === closingBracket) {
      if (open.length === 0) return message.slice(at) === end;
      if (open.pop() !== bracket || message.charCodeAt(++at) !== closingBracket) return false;
    }
  }
  return false;
}

/** Scans a message in the form of `JSON.stringify` without parsing it, and refuses any other form. */
function scan(
  message: string,
): { references: number; values: number; digits: number; charBytes: number } | string {
  let values = 0;
  let bits = 0;
  let referenceCount = 0;
  let digits = 0;
  for (let at = 0; at < message.length; at++) {
    const code = message.charCodeAt(at);
    bits |= code;
    if (code <= 0x20) return BROKE_CONTROL.otherJSON;
    if (code === quote) {
      const start = at + 1;
      for (at = start; at < message.length; at++) {
        const inside = message.charCodeAt(at);
        if (inside === quote) break;
        bits |= inside;
        if (inside !== backslash || message.charCodeAt(++at) !== letterU) continue;
        // An escape such as \u0101 makes a value of two bytes for each character.
        if (!message.startsWith("00", at + 1)) bits |= 0x100;
        // Only control characters need the others. A letter in this form could hide a type.
        else if (message.charCodeAt(at + 3) > digitOne) return BROKE_CONTROL.otherJSON;
      }
      const length = at - start;
      if (length >= 8 && length <= 10 && isDigits.test(message.slice(start, at))) digits += 1;
      if (message.charCodeAt(start - 2) !== bracket || length > 16) continue;
      const word = message.slice(start, at);
      if (unused.has(word) || (used.has(word) && start !== callAt)) return BROKE_CONTROL.unused(word);
      if (references.has(word)) referenceCount += 1;
    } else if (code === bracket || code === brace || code === comma) {
      values += 1;
      if (values > maxValues) return BROKE_CONTROL.values(maxValues);
    }
  }
  // V8 takes two bytes for each character of a string that has one above U+00FF.
  return { references: referenceCount, values, digits, charBytes: bits > 0xff ? 2 : 1 };
}
