/**
 * Finds which pattern ends at a character, with one lookup per character of any text. So the time does not reveal how much of a
 * pattern the text contains. Method: Aho and Corasick, "Efficient string matching", 1975.
 */
export class PatternAutomaton<Pattern extends { text: string }> {
  readonly #columns: Uint8Array;
  readonly #width: number;
  /** The next state for each state and column. The characters of a column count as equal. State 0 is the start. */
  readonly #next: Int32Array;
  readonly #ending: (Pattern | undefined)[] = [undefined];

  /** @param columns the column of each character code; 0 for characters in no pattern */
  constructor(patterns: readonly Pattern[], columns: Uint8Array) {
    this.#columns = columns;
    this.#width = Math.max(...columns) + 1;
    const states = 1 + patterns.reduce((sum, { text }) => sum + text.length, 0);
    this.#next = new Int32Array(states * this.#width);
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
    const shorter = new Int32Array(this.#ending.length);
    const queue = [0];
    for (const state of queue)
      for (let column = 1; column < this.#width; column++) {
        const index = state * this.#width + column;
        const fallback = state === 0 ? 0 : (this.#next[(shorter[state] ?? 0) * this.#width + column] ?? 0);
        const next = this.#next[index] ?? 0;
        if (next === 0) this.#next[index] = fallback;
        else {
          shorter[next] = fallback;
          this.#ending[next] ??= this.#ending[fallback];
          queue.push(next);
        }
      }
  }
}
