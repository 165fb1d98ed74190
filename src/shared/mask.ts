/**
 * Masks secret values in responses to a sandbox: a safety net against accidents, not a guarantee. It finds the traces of a value
 * (`tracesOf`), also if each of their characters is escaped as in URLs or JSON.
 */
import { type Secret, tracesOf } from "./secrets.ts";
import { joinBytes } from "./text.ts";

/** Replaces each byte, so that announced lengths stay correct. */
const STAR = "*".charCodeAt(0);

/** The longest spelling of a character: `\u002f`. */
const MAX_SPELLING_CHARS = 6;

/** How many characters of each trace the first search compares. A pattern of whole traces takes long to compile. */
const HEAD_CHARS = 8;

/** Base64 and base64url write two characters differently. */
const SAME = ["+-", "/_"];

const VISIBLE = Array.from({ length: 0x7f - 0x21 }, (_, index) => String.fromCharCode(0x21 + index));

/** Patterns for all spellings of each visible ASCII character, in upper and lower case, because names of headers are in lower case. */
const SPELLINGS = new Map(VISIBLE.map((character) => [character, new RegExp(spellingsOf(character), "iy")]));

const encoder = new TextEncoder();
const decoder = new TextDecoder();
/** Decodes each byte to one character. */
const latin1 = new TextDecoder("latin1");

export class Mask {
  readonly #traces: TraceFinder;

  constructor(secrets: readonly Secret[]) {
    this.#traces = new TraceFinder(secrets.flatMap(tracesOf));
  }

  text(text: string): string {
    const body = this.body();
    return decoder.decode(joinBytes([body.next(encoder.encode(text)), body.end()]));
  }

  /** Masks values of headers. Drops a header whose name contains a secret. */
  headers(headers: Headers): Headers {
    const safe = new Headers();
    for (const [name, value] of headers)
      if (this.#traces.findIn(name).length === 0) safe.append(name, this.text(value));
    return safe;
  }

  body(): BodyMask {
    return new BodyMask(this.#traces);
  }
}

/** Masks a body while it streams. Holds back the last word, because it may be the beginning of a trace. */
class BodyMask {
  readonly #traces: TraceFinder;
  #held: Uint8Array = new Uint8Array();
  /** How many of the held-back bytes are the end of a trace whose beginning has been sent. */
  #masked = 0;

  constructor(traces: TraceFinder) {
    this.#traces = traces;
  }

  /** Returns what may be sent after this piece has arrived. */
  next(piece: Uint8Array): Uint8Array {
    const { maxBytes } = this.#traces;
    const held = this.#held.length;
    const bytes = held === 0 ? piece : joinBytes([this.#held, piece]);
    let end = bytes.length;
    while (end > held && isVisible(bytes[end - 1] ?? 0)) end--;
    // The held-back bytes are part of one word, so only the new bytes can end it.
    if (end === held) end = 0;
    // Sends many bytes of a long word at a time, because each search begins with the held-back bytes.
    if (bytes.length - end >= 2 * maxBytes) end = bytes.length - maxBytes;
    return this.#send(bytes, end);
  }

  /** Returns the rest, after the last piece. */
  end(): Uint8Array {
    return this.#send(this.#held, this.#held.length);
  }

  #send(bytes: Uint8Array, end: number): Uint8Array {
    this.#held = bytes.slice(end);
    const sent = bytes.slice(0, end);
    if (end === 0) return sent;
    let masked = this.#masked;
    sent.fill(STAR, 0, masked);
    for (const [start, traceEnd] of this.#traces.findIn(latin1.decode(bytes))) {
      if (start >= end) break;
      sent.fill(STAR, start, traceEnd);
      masked = Math.max(masked, traceEnd);
    }
    this.#masked = Math.max(0, masked - end);
    return sent;
  }
}

class TraceFinder {
  /** The longest spelling of the longest trace. */
  readonly maxBytes: number;
  readonly #traces: readonly string[];
  readonly #heads: RegExp;

  constructor(traces: readonly string[]) {
    const heads = traces.map((trace) => Array.from(trace.slice(0, HEAD_CHARS), spellingsOf).join(""));
    this.maxBytes = Math.max(...traces.map(({ length }) => length)) * MAX_SPELLING_CHARS;
    this.#traces = traces;
    this.#heads = new RegExp(heads.join("|"), "gi");
  }

  /** Returns the ranges of traces in the order of their starts. They may overlap. */
  findIn(text: string): [start: number, end: number][] {
    const found: [number, number][] = [];
    this.#heads.lastIndex = 0;
    for (let head = this.#heads.exec(text); head; head = this.#heads.exec(text)) {
      const start = head.index;
      this.#heads.lastIndex = start + 1;
      for (const trace of this.#traces) {
        const end = endOf(trace, text, start);
        if (end !== undefined) found.push([start, end]);
      }
    }
    return found;
  }
}

function endOf(trace: string, text: string, start: number): number | undefined {
  // A value can look like an escape itself: in the value `%25`, these characters are not a percent sign.
  if (text.startsWith(trace, start)) return start + trace.length;
  let end = start;
  for (const character of trace) {
    // This comparison is faster than a pattern, but `%` and a backslash may begin an escape of themselves.
    const isPlain = text[end] === character && character !== "%" && character !== "\\";
    const length = isPlain ? 1 : spelledLength(character, text, end);
    if (length === 0) return undefined;
    end += length;
  }
  return end;
}

/** The length of a character in any spelling at this position; 0 if another character is there. */
function spelledLength(character: string, text: string, at: number): number {
  const spellings = SPELLINGS.get(character);
  if (!spellings) return 0;
  spellings.lastIndex = at;
  return spellings.exec(text)?.[0].length ?? 0;
}

/** The source of a pattern for all spellings of a visible ASCII character. */
function spellingsOf(character: string): string {
  const same = SAME.find((pair) => pair.includes(character)) ?? character;
  const spellings = Array.from(same, (one) => {
    const code = one.charCodeAt(0).toString(16);
    const backslash = /["/\\]/.test(one) ? "\\\\?" : "";
    return `(?:%|\\\\u00)${code}|${backslash}\\x${code}`;
  });
  return `(?:${spellings.join("|")})`;
}

function isVisible(byte: number): boolean {
  return byte > 0x20 && byte < 0x7f;
}
