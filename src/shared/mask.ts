/** Takes values of secrets out of what a sandbox is sent, wherever pieces of it begin and end. */
import { type Secret, tracesOf } from "./secrets.ts";

/** Stands for each byte, so that lengths that were announced stay true. */
const STAR = 0x2a;

/** How long a value is, is told no more exactly than this by what waits. Bytes. */
const LENGTH_CLASS = 64;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Mask {
  readonly #traces: readonly Uint8Array[];
  /** The length of the longest, rounded up. */
  readonly #longest: number;

  constructor(secrets: readonly Secret[]) {
    this.#traces = secrets.flatMap(tracesOf).map((trace) => encoder.encode(trace));
    const longest = Math.max(0, ...this.#traces.map(({ length }) => length));
    this.#longest = Math.ceil(longest / LENGTH_CLASS) * LENGTH_CLASS;
  }

  text(text: string): string {
    const bytes = encoder.encode(text);
    const found = this.#found(bytes);
    return found.length === 0 ? text : decoder.decode(covered(bytes, found));
  }

  headers(headers: Headers): Headers {
    const masked = new Headers();
    for (const [name, value] of headers) masked.append(name, this.text(value));
    return masked;
  }

  /** Masks a body on its way. A line that has not ended yet waits, as far as a value could begin in it. */
  stream(): TransformStream<Uint8Array, Uint8Array> {
    let waiting: Uint8Array = new Uint8Array();
    /** How much of it ends something that was found already. */
    let covers = 0;
    const take = (bytes: Uint8Array, keep: (bytes: Uint8Array) => number) => {
      const whole = waiting.length === 0 ? bytes : joined(waiting, bytes);
      const found = this.#found(whole);
      if (covers > 0) found.push([0, covers]);
      const end = whole.length - keep(whole);
      const shown = covered(whole, found).subarray(0, end);
      covers = Math.max(0, ...found.map(([start, until]) => (start < end ? until - end : 0)));
      waiting = whole.slice(end);
      return shown;
    };
    return new TransformStream({
      transform: (bytes, controller) => {
        const shown = take(bytes, (whole) => this.#held(whole));
        if (shown.length > 0) controller.enqueue(shown);
      },
      flush: (controller) => {
        const rest = take(new Uint8Array(), () => 0);
        if (rest.length > 0) controller.enqueue(rest);
      },
    });
  }

  /** Where traces are, each with its start and end. */
  #found(bytes: Uint8Array): [start: number, end: number][] {
    const found: [number, number][] = [];
    for (const trace of this.#traces) {
      const [first = 0] = trace;
      for (let at = bytes.indexOf(first); at >= 0; at = bytes.indexOf(first, at + 1))
        if (isAt(trace, bytes, at, trace.length)) found.push([at, at + trace.length]);
    }
    return found;
  }

  /**
   * How many bytes at the end wait for what follows: those since the last that no trace has, as the end of a line, and no
   * more than a trace could begin with. Which bytes they are has no part in it: where an answer stops would tell a caller
   * whose text comes back in it how much of a value he has guessed.
   */
  #held(bytes: Uint8Array): number {
    let held = 0;
    while (held < Math.min(this.#longest, bytes.length) && isVisible(bytes.at(-1 - held) ?? 0)) held++;
    return held;
  }
}

/** Whether a trace may have a byte. Values and their spellings are visible ASCII, with spaces. */
function isVisible(byte: number): boolean {
  return byte >= 0x20 && byte <= 0x7e;
}

/** Whether the first `length` bytes of a trace stand at a place. */
function isAt(trace: Uint8Array, bytes: Uint8Array, at: number, length: number): boolean {
  if (at + length > bytes.length) return false;
  for (let index = 0; index < length; index++) if (trace[index] !== bytes[at + index]) return false;
  return true;
}

function covered(bytes: Uint8Array, found: readonly [start: number, end: number][]): Uint8Array {
  if (found.length === 0) return bytes;
  const copy = bytes.slice();
  for (const [start, end] of found) copy.fill(STAR, start, end);
  return copy;
}

function joined(one: Uint8Array, other: Uint8Array): Uint8Array {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}
