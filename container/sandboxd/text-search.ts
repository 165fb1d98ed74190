/**
 * Finds a text in linear time (Knuth, Morris and Pratt). The search of V8 takes time for each pair of a place and a character of the
 * wanted text: with 8 MB and a wanted text of 1 MB, it occupied sandboxd until it was killed.
 */

/** V8 finds texts of this length quickly enough, and several times faster. */
const SHORT = 32;

export class TextSearch {
  readonly #wanted: string;
  /** For each number of matched characters, how many of them still match after a character that does not. */
  readonly #next: Uint32Array;

  constructor(wanted: string) {
    this.#wanted = wanted;
    this.#next = new Uint32Array(wanted.length <= SHORT ? 0 : wanted.length + 1);
    for (let at = 1, matched = 0; at < this.#next.length - 1; at++) {
      matched = this.#advance(matched, wanted.charCodeAt(at));
      this.#next[at + 1] = matched;
    }
  }

  #advance(matched: number, code: number): number {
    let from = matched;
    while (from > 0 && this.#wanted.charCodeAt(from) !== code) from = this.#next[from] ?? 0;
    return this.#wanted.charCodeAt(from) === code ? from + 1 : 0;
  }

  /** As `text.indexOf(wanted, from)`. */
  indexIn(text: string, from: number): number {
    const { length } = this.#wanted;
    if (length <= SHORT) return text.indexOf(this.#wanted, from);
    for (let at = from, matched = 0; at < text.length; at++) {
      matched = this.#advance(matched, text.charCodeAt(at));
      if (matched === length) return at + 1 - length;
    }
    return -1;
  }

  /** As `text.split(wanted)`. */
  split(text: string): string[] {
    const { length } = this.#wanted;
    if (length <= SHORT) return text.split(this.#wanted);
    const parts: string[] = [];
    let from = 0;
    for (let at = this.indexIn(text, 0); at >= 0; at = this.indexIn(text, from)) {
      parts.push(text.slice(from, at));
      from = at + length;
    }
    parts.push(text.slice(from));
    return parts;
  }
}
