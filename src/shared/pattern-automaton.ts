/**
 * Finds which pattern ends at a character, with one lookup per character of any text. So the time does not reveal how much of a
 * pattern the text contains. Method: Aho and Corasick, "Efficient string matching", 1975.
 */
export class PatternAutomaton<Pattern extends { text: string }> {
  readonly #columns: Uint8Array;
  readonly #width: number;
  /** The next state for each state and column. The characters of a column count as equal. State 0 is the start. */
  readonly #next: Uint16Array | Int32Array;
  readonly #ending: (Pattern | undefined)[] = [undefined];

  /** @param columns the column of each character code; 0 for characters in no pattern */
  constructor(patterns: readonly Pattern[], columns: Uint8Array) {
    this.#columns = columns;
    this.#width = Math.max(...columns) + 1;
    const states = 1 + patterns.reduce((sum, { text }) => sum + text.length, 0);
    this.#next = new (states < 2 ** 16 ? Uint16Array : Int32Array)(states * this.#width);
    for (const pattern of patterns) this.#add(pattern);
    this.#complete();
  }

  /** The state after one more character. 0 means that no pattern has begun. */
  next(state: number, character: number): number {
    return this.#next[state * this.#width + (this.#columns[character] ?? 0)] ?? 0;
  }

  endingAt(state: number): Pattern | undefined {
    return this.#ending[state];
  }

  #add(pattern: Pattern): void {
    let state = 0;
    for (const character of pattern.text) {
      const index = state * this.#width + (this.#columns[character.charCodeAt(0)] ?? 0);
      state = this.#next[index] || this.#ending.push(undefined) - 1;
      this.#next[index] = state;
    }
    this.#ending[state] = pattern;
  }

  /**
   * Adds the transitions for characters that continue no pattern. Each leads to the longest pattern prefix that the text ends
   * with.
   */
  #complete(): void {
    const [next, width, ending] = [this.#next, this.#width, this.#ending];
    const shorter = new Int32Array(ending.length);
    const queue = [0];
    for (const state of queue) {
      const at = state * width;
      const fallbacks = (shorter[state] ?? 0) * width;
      for (let column = 1; column < width; column++) {
        const fallback = state === 0 ? 0 : (next[fallbacks + column] ?? 0);
        const following = next[at + column] ?? 0;
        if (following === 0) next[at + column] = fallback;
        else {
          shorter[following] = fallback;
          ending[following] ??= ending[fallback];
          queue.push(following);
        }
      }
    }
  }
}
