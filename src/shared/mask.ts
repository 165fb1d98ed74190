/**
 * Takes values of secrets out of what a sandbox is sent, wherever pieces of it begin and end. Where and when something is
 * sent depends on line ends and on lengths alone: it would otherwise tell code that has its own text come back how much of a
 * value it has guessed.
 */
import { PatternAutomaton } from "./pattern-automaton.ts";
import { type Secret, type Trace, tracesOf } from "./secrets.ts";
import { LONGEST_SPELLING, escapedAt, isEscape } from "./spelling.ts";

/** Stands for each byte, so that lengths that were announced stay true. */
const STAR = 0x2a;

const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;

/** Characters. How much text is held back is rounded up to a multiple of this, so that it does not tell the exact length of a value. */
const LENGTH_CLASS = 64;

/**
 * A line this long may go on in the next as base64 does, which may be indented, or come behind a space where a header has
 * several lines. PEM has 64 characters in a line, MIME 76.
 */
const LEAST_WRAPPED_LINE = 32;

/**
 * How many decodings of one text are followed at the same time, beside the text itself. One that another has reached too is not
 * followed twice. Only a value like `%2525252B` needs more than two.
 */
const MOST_READINGS = 8;

/** What may be of a trace: nothing, text, and text or base64, with the characters of its escapes. */
const [NEVER, TEXT, BASE64] = [0, 1, 2];
const KINDS = Uint8Array.from({ length: 256 }, (_, byte) => {
  if (byte < 0x20 || byte > 0x7e) return NEVER;
  return /[A-Za-z0-9+/=_%\\&#;-]/.test(String.fromCharCode(byte)) ? BASE64 : TEXT;
});

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Where something is: its first byte and that after its last. */
type Range = [start: number, end: number];

export class Mask {
  readonly #patterns: readonly Patterns[];
  /** Bytes that wait at most: the longest spelling of the longest trace. */
  readonly #mostHeld: number;
  /** The same patterns in small letters, as they would be in the name of a header. */
  readonly #names: readonly Patterns[];

  constructor(secrets: readonly Secret[]) {
    const all = secrets.map(knownOf);
    this.#patterns = all.flatMap(({ patterns }) => patterns);
    this.#names = all.flatMap(({ names }) => names);
    const longest = Math.max(0, ...this.#patterns.map((one) => one.longest));
    this.#mostHeld = Math.ceil((longest + 1) / LENGTH_CLASS) * LENGTH_CLASS * LONGEST_SPELLING;
  }

  text(text: string): string {
    return this.#masked(text, this.#patterns);
  }

  /** Headers with their values masked, without those whose names hold a value: what they are in capitals is not known. */
  headers(headers: Headers): Headers {
    const masked = new Headers();
    for (const [name, value] of headers)
      if (this.#masked(name, this.#names) === name) masked.append(name, this.text(value));
    return masked;
  }

  #masked(text: string, patterns: readonly Patterns[]): string {
    const body = new MaskedBody(patterns, this.#mostHeld);
    return decoder.decode(joined(body.add(encoder.encode(text)), body.rest()));
  }

  /** Masks a body on its way. A line that has not ended yet waits, as far as a value could begin in it. */
  stream(): TransformStream<Uint8Array, Uint8Array> {
    const body = new MaskedBody(this.#patterns, this.#mostHeld);
    return new TransformStream({
      transform: (bytes, controller) => {
        const shown = body.add(bytes);
        if (shown.length > 0) controller.enqueue(shown);
      },
      flush: (controller) => {
        const rest = body.rest();
        if (rest.length > 0) controller.enqueue(rest);
      },
    });
  }
}

/** Traces of one secret that are looked for together. */
interface Patterns {
  isBase64: boolean;
  automaton: PatternAutomaton<Trace>;
  /** Characters of the longest. */
  longest: number;
}

interface Known {
  patterns: readonly Patterns[];
  names: readonly Patterns[];
}

const known = new WeakMap<Secret, Known>();

function knownOf(secret: Secret): Known {
  let found = known.get(secret);
  if (found === undefined) {
    const traces = tracesOf(secret);
    const small = traces.map((trace) => ({ ...trace, text: trace.text.toLowerCase() }));
    found = { patterns: patternsOf(traces), names: patternsOf(small, true) };
    known.set(secret, found);
  }
  return found;
}

/** Those in base64, which line ends may cut, and the others. */
function patternsOf(traces: readonly Trace[], ignoresCase = false): Patterns[] {
  return [false, true].map((isBase64): Patterns => {
    const some = traces.filter((trace) => trace.isBase64 === isBase64);
    const longest = Math.max(...some.map(({ text }) => text.length));
    return { isBase64, automaton: new PatternAutomaton(some, ignoresCase), longest };
  });
}

/** One body, or one text. */
class MaskedBody {
  readonly #searches: readonly Search[];
  readonly #mostHeld: number;
  /** What was not shown yet. Places below count from its first byte. */
  #waiting: Uint8Array = new Uint8Array();
  /** What of it is to be masked. */
  #masked: Range[] = [];
  /** The last byte that an escape may begin with. */
  #escape = -LONGEST_SPELLING;
  /** Where the last line begins, or the text after a byte that no trace has. */
  #line = 0;
  /** Where the base64 begins that the end may go on with after a gap; undefined where there is none. */
  #wrapped: number | undefined;
  /** Bytes at the end that may be base64, after the last gap. */
  #base64Length = 0;
  /** Whether the last byte is in a gap over which base64 may go on. */
  #isInGap = false;

  constructor(patterns: readonly Patterns[], mostHeld: number) {
    this.#searches = patterns.map((one) => new Search(one));
    this.#mostHeld = mostHeld;
  }

  /** @returns what of the body can be shown now */
  add(bytes: Uint8Array): Uint8Array {
    const from = this.#waiting.length;
    this.#waiting = from === 0 ? bytes : joined(this.#waiting, bytes);
    for (let at = from; at < this.#waiting.length;) at = this.#skim(at) ?? this.#read(at);
    const held = this.#waiting.length - Math.min(this.#line, this.#wrapped ?? this.#line);
    return this.#shown(this.#waiting.length - Math.min(this.#mostHeld, held));
  }

  rest(): Uint8Array {
    return this.#shown(this.#waiting.length);
  }

  /** Reads up to the next escape or gap, where no escape is being read. @returns where that is, if it is further */
  #skim(from: number): number | undefined {
    const bytes = this.#waiting;
    if (from - this.#escape < LONGEST_SPELLING || this.#searches.some(({ hasOthers }) => hasOthers)) return;
    let to = from;
    for (; to < bytes.length; to++) {
      const byte = bytes[to] ?? 0;
      if (isEscape(byte) || (isGap(byte) && this.#mayWrap)) break;
      this.#follow(byte, to);
    }
    for (const search of this.#searches)
      search.skim(bytes, from, to, (trace, end) => this.#cover(trace, end));
    return to > from ? to : undefined;
  }

  /** Reads one byte. @returns the place after it */
  #read(at: number): number {
    const bytes = this.#waiting;
    const byte = bytes[at] ?? 0;
    const isWrap = this.#follow(byte, at);
    const escaped = escapedAt(bytes, this.#escape, at + 1);
    for (const search of this.#searches)
      for (const trace of search.read(byte, isWrap, escaped)) this.#cover(trace, at + 1);
    if (isEscape(byte)) this.#escape = at;
    return at + 1;
  }

  /** Whether base64 may go on over a gap that comes now. */
  get #mayWrap(): boolean {
    return this.#isInGap || this.#base64Length >= LEAST_WRAPPED_LINE;
  }

  /** Follows lines. @returns whether base64 may go on over the byte */
  #follow(byte: number, at: number): boolean {
    const kind = KINDS[byte];
    if (kind === BASE64) {
      this.#base64Length++;
      this.#isInGap = false;
      return false;
    }
    const goesOn = isGap(byte) && this.#mayWrap;
    this.#wrapped = goesOn ? (this.#wrapped ?? Math.max(0, at - this.#base64Length)) : undefined;
    if (kind === NEVER) this.#line = at + 1;
    this.#base64Length = 0;
    this.#isInGap = goesOn;
    return goesOn;
  }

  #cover(trace: Trace, end: number): void {
    const start = beginning(this.#waiting, trace, end);
    const last = this.#masked.at(-1);
    if (!last || start > last[1] || end < last[0]) this.#masked.push([start, end]);
    else this.#masked[this.#masked.length - 1] = [Math.min(start, last[0]), Math.max(end, last[1])];
  }

  /** Takes the first bytes of what waits. */
  #shown(end: number): Uint8Array {
    const shown = this.#waiting.slice(0, end);
    this.#waiting = this.#waiting.slice(end);
    for (const range of this.#masked) shown.fill(STAR, ...range);
    this.#masked = this.#masked.flatMap(([from, until]) =>
      until > end ? [[Math.max(0, from - end), until - end]] : [],
    );
    this.#escape -= end;
    this.#line = Math.max(0, this.#line - end);
    if (this.#wrapped !== undefined) this.#wrapped = Math.max(0, this.#wrapped - end);
    return shown;
  }
}

const NO_TRACES: readonly Trace[] = [];

const NO_STATES: readonly number[] = [];

/** Where an automaton is in a text: in one state for the text as it stands, and in others where escapes are read. */
class Search {
  readonly #automaton: PatternAutomaton<Trace>;
  readonly #isBase64: boolean;
  #plain = 0;
  #others = NO_STATES;
  /** The same before the last byte that an escape may begin with. */
  #escapePlain = 0;
  #escapeOthers = NO_STATES;

  constructor({ automaton, isBase64 }: Patterns) {
    this.#automaton = automaton;
    this.#isBase64 = isBase64;
  }

  get hasOthers(): boolean {
    return this.#others.length > 0;
  }

  /** Reads bytes that have one reading. @param found is told each trace and the place after it */
  skim(bytes: Uint8Array, from: number, to: number, found: (trace: Trace, end: number) => void): void {
    const automaton = this.#automaton;
    let state = this.#plain;
    for (let at = from; at < to; at++) {
      state = automaton.next(state, bytes[at] ?? 0);
      const trace = automaton.endingAt(state);
      if (trace) found(trace, at + 1);
    }
    this.#plain = state;
  }

  /**
   * Reads one byte.
   * @param isWrap whether it is in a gap over which base64 may go on
   * @param escaped the character of the escape that ends with the byte, or -1
   * @returns the traces that end with it, of those that end in one state the longest
   */
  read(byte: number, isWrap: boolean, escaped: number): readonly Trace[] {
    const others = this.#others;
    const plain = this.#step(this.#plain, byte, isWrap);
    const reading = escaped < 0 ? plain : this.#step(this.#escapePlain, escaped, isGap(escaped));
    const escapedOthers = escaped < 0 ? NO_STATES : this.#escapeOthers;
    if (isEscape(byte)) {
      this.#escapePlain = this.#plain;
      this.#escapeOthers = others;
    }
    this.#plain = plain;
    if ((reading === plain || reading === 0) && others.length === 0 && escapedOthers.length === 0) {
      const found = this.#automaton.endingAt(plain);
      return found ? [found] : NO_TRACES;
    }
    const states = new Set([reading]);
    for (const state of others) states.add(this.#step(state, byte, isWrap));
    for (const state of escapedOthers) states.add(this.#step(state, escaped, isGap(escaped)));
    // The beginning has nothing to follow, and what goes on as the text does is followed already.
    states.delete(0);
    states.delete(plain);
    const found = [plain, ...states].flatMap((state) => this.#automaton.endingAt(state) ?? []);
    this.#automaton.reduce(states);
    this.#others = states.size === 0 ? NO_STATES : [...states].slice(0, MOST_READINGS);
    return found;
  }

  #step(state: number, character: number, isWrap: boolean): number {
    return isWrap && this.#isBase64 ? state : this.#automaton.next(state, character);
  }
}

/** The first byte of a trace that ends before `end`, read backwards in all its spellings; 0 where it began in what is gone. */
function beginning(bytes: Uint8Array, { text, isBase64, sharesFirst }: Trace, end: number): number {
  const first = end - text.length;
  if (first > LONGEST_SPELLING && isPlain(bytes, first - LONGEST_SPELLING, end))
    return sharesFirst && KINDS[bytes[first - 1] ?? 0] === BASE64 ? first - 1 : first;
  let places = new Set([end]);
  for (let index = text.length - 1; index >= 0; index--) {
    const wanted = text.charCodeAt(index);
    const before = new Set<number>();
    // A gap adds a place to those that are gone through.
    for (const place of places)
      for (const [character, length] of spellingsBefore(bytes, place)) {
        if (character === wanted) before.add(place - length);
        else if (isBase64 && isGap(character)) places.add(place - length);
      }
    if (before.size === 0) return 0;
    places = before;
  }
  // Of two readings that which takes the text as it stands: the other shows that the first character may be read so.
  let start = Math.max(...places);
  if (sharesFirst) {
    const ends = new Set([start]);
    // It may be at the end of the line before.
    for (const place of ends)
      for (const [character, length] of spellingsBefore(bytes, place)) {
        if (isGap(character)) ends.add(place - length);
        else if (KINDS[character] === BASE64) start = Math.min(start, place - length);
      }
  }
  const before = String.fromCharCode(...bytes.subarray(Math.max(0, start - LONGEST_SPELLING), start));
  return start - (BEGUN_ESCAPE.exec(before)?.[0].length ?? 0);
}

/**
 * The beginning of an escape. It is masked with what follows it whether that ends it or not: `%3` before a value would
 * otherwise tell whether that begins with a digit, which it makes `%31` with.
 */
const BEGUN_ESCAPE = /(?:%[0-9a-f]?|\\(?:u[0-9a-f]{0,3}|x[0-9a-f]?)?|&#x?[0-9a-f]*)$/i;

/** Whether there is but one way to read a text: no escape may be in it, and no gap. */
function isPlain(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at++) {
    const byte = bytes[at] ?? 0;
    if (isEscape(byte) || isGap(byte)) return false;
  }
  return true;
}

/** The characters that end before a place, in each spelling. */
function spellingsBefore(bytes: Uint8Array, place: number): [character: number, length: number][] {
  if (place === 0) return [];
  const found: [number, number][] = [[bytes[place - 1] ?? 0, 1]];
  for (let length = 2; length <= Math.min(LONGEST_SPELLING, place); length++) {
    const escaped = escapedAt(bytes, place - length, place);
    if (escaped >= 0) found.push([escaped, length]);
  }
  return found;
}

/** Whether a character may be in a gap of base64: a line end, or what a line begins with where it is indented. */
function isGap(character: number): boolean {
  return character === LF || character === CR || character === SPACE || character === TAB;
}

function joined(one: Uint8Array, other: Uint8Array): Uint8Array {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}
