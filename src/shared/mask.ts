/**
 * Masks secret values in responses to a sandbox: a safety net, not a guarantee. It finds values as they are, with percent or
 * JSON escapes, and inside base64, also if a value arrives in several pieces of a body. A text that reveals a value is called a
 * trace.
 *
 * The times and sizes of the masked pieces depend only on lengths and word boundaries. Otherwise code could send guesses to a
 * host that echoes them, and learn from the timing how much of a value is right.
 */
import { PatternAutomaton } from "./pattern-automaton.ts";
import { joinBytes } from "./text.ts";
import { type Secret, type SecretTrace, tracesOf } from "./secrets.ts";

/** Replaces each byte, so that announced lengths stay correct. */
const STAR = 0x2a;
const PERCENT = 0x25;
const BACKSLASH = 0x5c;
const LOWER_U = 0x75;
const QUOTE = 0x22;
const SLASH = 0x2f;
const DIGITS = "0123456789abcdef";

/** The longest spelling of one character, as in `\u002f`. */
const MAX_SPELLING_CHARS = 6;

/** The number of bytes that are held back is rounded up to a multiple of this, so that it does not reveal a value's length. */
const LENGTH_CLASS = 64;

const BASE64_PAIRS = ["+-", "/_"];
const CASE_PAIRS = Array.from("abcdefghijklmnopqrstuvwxyz", (letter) => letter + letter.toUpperCase());

const isVisible = (byte: number) => byte > 0x20 && byte < 0x7f;

/**
 * The beginning of an escape, such as `%3`. Directly before a value, it is always masked too. `%3` and the value's first character
 * can form an escape of that same character: `%35` is `5`. A mask that began with `%3` only in this case would reveal the character.
 */
const BEGUN_ESCAPE = /(?:%[0-9a-f]?|\\(?:u[0-9a-f]{0,3})?)$/i;
/** A base64 character directly before a value. It can contain bits of the value. */
const BEGUN_BASE64 = /[\w+/-]$/;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Mask {
  readonly #traces: readonly TraceMatcher[];
  readonly #names: readonly TraceMatcher[];

  constructor(secrets: readonly Secret[]) {
    const all = secrets.map(matchersOf);
    this.#traces = all.map(({ traces }) => traces);
    this.#names = all.map(({ names }) => names);
  }

  text(text: string): string {
    return decoder.decode(maskBytes(encoder.encode(text), this.#traces));
  }

  /** Masks values of headers. Drops a header whose name contains a secret, in upper or lower case. */
  headers(headers: Headers): Headers {
    const safe = new Headers();
    for (const [name, value] of headers)
      if (this.#names.every((names) => names.findIn(encoder.encode(name)).length === 0))
        safe.append(name, this.text(value));
    return safe;
  }

  body(): BodyMask {
    return new BodyMask(this.#traces);
  }
}

/** Masks a body while it streams. Holds back the last word while it may be the beginning of a value. */
class BodyMask {
  readonly #traces: readonly TraceMatcher[];
  readonly #maxHeldBytes: number;
  /** The held-back bytes, and enough bytes before them to find a trace that began earlier. */
  #tail: Uint8Array = new Uint8Array();
  /** How many bytes of `#tail` have been returned. */
  #sent = 0;

  constructor(traces: readonly TraceMatcher[]) {
    this.#traces = traces;
    this.#maxHeldBytes = Math.max(0, ...traces.map((trace) => trace.maxHeldBytes));
  }

  /** Returns what may be sent after this piece has arrived. */
  next(piece: Uint8Array): Uint8Array {
    const [tail, sent, maxHeldBytes] = [this.#tail, this.#sent, this.#maxHeldBytes];
    const bytes = tail.length === 0 ? piece : joinBytes([tail, piece]);
    // The held-back bytes are of one word, so only the new ones can end it.
    let end = bytes.length;
    while (end > tail.length && isVisible(bytes[end - 1] ?? 0)) end--;
    const endsWord = end > tail.length;
    if (!endsWord) end = sent;
    // Only a part of a long word is held back. The search begins before the bytes that it sends. So it sends many of them at once:
    // when it sent each byte that arrived alone, such bytes took the thread 10 ms each with a value of 5,000 characters.
    const isLong = bytes.length - end >= 2 * maxHeldBytes;
    if (isLong) end = bytes.length - maxHeldBytes;
    const masked = end > sent ? maskBytes(bytes, this.#traces, sent, end) : new Uint8Array();
    const tailStart = endsWord && !isLong ? end : Math.max(0, end - maxHeldBytes);
    this.#tail = bytes.slice(tailStart);
    this.#sent = end - tailStart;
    return masked;
  }

  /** Returns the rest, after the last piece. */
  end(): Uint8Array {
    return this.#tail.length > this.#sent
      ? maskBytes(this.#tail, this.#traces, this.#sent)
      : new Uint8Array();
  }
}

const matchers = new WeakMap<Secret, { traces: TraceMatcher; names: TraceMatcher }>();

function matchersOf(secret: Secret): { traces: TraceMatcher; names: TraceMatcher } {
  let found = matchers.get(secret);
  if (!found) {
    const traces = tracesOf(secret);
    const lowerCase = traces.map((trace) => ({ ...trace, text: trace.text.toLowerCase() }));
    found = {
      traces: new TraceMatcher(traces, BASE64_PAIRS),
      names: new TraceMatcher(lowerCase, [...BASE64_PAIRS, ...CASE_PAIRS]),
    };
    matchers.set(secret, found);
  }
  return found;
}

function maskBytes(
  bytes: Uint8Array,
  traces: readonly TraceMatcher[],
  from = 0,
  to = bytes.length,
): Uint8Array {
  const copy = bytes.slice(from, to);
  for (const [start, end] of traces.flatMap((trace) => trace.findIn(bytes)))
    if (end > from) copy.fill(STAR, Math.max(0, start - from), Math.max(0, end - from));
  return copy;
}

class TraceMatcher {
  /** The most bytes that are held back: the longest spelling of the longest trace. */
  readonly maxHeldBytes: number;
  readonly #automaton: PatternAutomaton<SecretTrace>;

  /** @param same pairs of characters treated as equal */
  constructor(traces: readonly SecretTrace[], same: readonly string[]) {
    const longest = Math.max(0, ...traces.map(({ text }) => text.length)) + 2;
    this.maxHeldBytes = Math.ceil(longest / LENGTH_CLASS) * LENGTH_CLASS * MAX_SPELLING_CHARS;
    const columns = new Uint8Array(256);
    let count = 0;
    for (const { text } of traces) for (const byte of encoder.encode(text)) columns[byte] ||= ++count;
    for (const [one = "", other = ""] of same) {
      const [first, second] = [one.charCodeAt(0), other.charCodeAt(0)];
      columns[first] = columns[second] = columns[first] || columns[second] || 0;
    }
    this.#automaton = new PatternAutomaton(traces, columns);
  }

  /**
   * Returns the positions of traces. Searches the bytes as they are, then with decoded percent escapes, then with decoded JSON
   * escapes. Ranges may overlap.
   */
  findIn(bytes: Uint8Array): [start: number, end: number][] {
    const found = this.#findPlain(bytes);
    for (const escape of [PERCENT, BACKSLASH])
      if (bytes.includes(escape)) found.push(...this.#findEscaped(bytes, escape));
    return found;
  }

  #findPlain(bytes: Uint8Array): [number, number][] {
    const automaton = this.#automaton;
    const found: [number, number][] = [];
    let state = 0;
    for (let at = 0; at < bytes.length; at++) {
      state = automaton.next(state, bytes[at] ?? 0);
      const trace = automaton.endingAt(state);
      if (trace) addRange(found, trace, bytes, at + 1 - trace.text.length, at + 1);
    }
    return found;
  }

  #findEscaped(bytes: Uint8Array, escape: number): [number, number][] {
    const ranges: [number, number][] = [];
    const places = new Int32Array(bytes.length);
    let state = 0;
    let count = 0;
    for (let at = 0; at < bytes.length; count++) {
      places[count] = at;
      const escaped = bytes[at] === escape ? decodeEscape(bytes, at) : -1;
      state = this.#automaton.next(state, escaped < 0 ? (bytes[at] ?? 0) : escaped);
      at += escaped < 0 ? 1 : escapeLength(bytes, at);
      const trace = this.#automaton.endingAt(state);
      if (trace) addRange(ranges, trace, bytes, places[count + 1 - trace.text.length] ?? 0, at);
    }
    return ranges;
  }
}

function decodeEscape(bytes: Uint8Array, at: number): number {
  const next = bytes[at + 1] ?? 0;
  if (bytes[at] === PERCENT) return hexadecimal(bytes, at + 1, at + 3);
  if (next === LOWER_U) return hexadecimal(bytes, at + 2, at + 6);
  return next === QUOTE || next === SLASH || next === BACKSLASH ? next : -1;
}

function escapeLength(bytes: Uint8Array, at: number): number {
  if (bytes[at] === PERCENT) return 3;
  return bytes[at + 1] === LOWER_U ? MAX_SPELLING_CHARS : 2;
}

function hexadecimal(bytes: Uint8Array, from: number, to: number): number {
  let number = 0;
  for (let at = from; at < to; at++) {
    const digit = DIGITS.indexOf(String.fromCharCode(bytes[at] ?? 0).toLowerCase());
    if (digit < 0) return -1;
    number = number * 16 + digit;
  }
  return number;
}

/** Adds the range of a trace, or extends the last one: a value that repeats itself (`aaaa`) can end at every byte. */
function addRange(
  ranges: [number, number][],
  trace: SecretTrace,
  bytes: Uint8Array,
  start: number,
  end: number,
): void {
  const last = ranges.at(-1);
  // If the last range began long before `start`, that range also covers an escape or a base64 character before `start`.
  const isInside = last !== undefined && start >= last[0] + MAX_SPELLING_CHARS && start <= last[1];
  const range: [number, number] = isInside
    ? [start, end + (trace.sharesLast ? 1 : 0)]
    : rangeOf(trace, bytes, start, end);
  if (last === undefined || range[0] > last[1] || range[1] < last[0]) return void ranges.push(range);
  last[0] = Math.min(last[0], range[0]);
  last[1] = Math.max(last[1], range[1]);
}

/** The range to mask for a trace, with neighbouring base64 characters that contain bits of the value, and a begun escape. */
function rangeOf(
  { sharesFirst, sharesLast }: SecretTrace,
  bytes: Uint8Array,
  start: number,
  end: number,
): [number, number] {
  const before = String.fromCharCode(...bytes.subarray(Math.max(0, start - MAX_SPELLING_CHARS), start));
  const begun = (sharesFirst && BEGUN_BASE64.exec(before)) || BEGUN_ESCAPE.exec(before);
  return [start - (begun?.[0].length ?? 0), end + (sharesLast ? 1 : 0)];
}
