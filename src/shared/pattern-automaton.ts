/**
 * Finds which of several patterns ends at a character, by one look-up for each character whatever the text is. The method:
 * Aho and Corasick, "Efficient string matching", 1975.
 */
export class PatternAutomaton<Pattern extends { text: string }> {
  /** Which column of the table a character has. Those that no pattern has share the first. */
  readonly #columns = new Uint8Array(256);
  readonly #width: number;
  /** The next state for each state and column. The first state is that of the beginning. */
  readonly #next: Int32Array;
  /** The longest pattern that ends at a state. */
  readonly #ending: (Pattern | undefined)[] = [undefined];
  /** For each state that of the next shorter beginning of a pattern that the text ends with. */
  #shorter = new Int32Array();

  /**
   * @param patterns of ASCII characters
   * @param ignoresCase has a capital letter of the text count as a small one, which all of the patterns are to be in
   */
  constructor(patterns: readonly Pattern[], ignoresCase = false) {
    let columns = 1;
    let states = 1;
    let previous = "";
    // Sorted, so that each is beside those that begin as it does, whose states it shares.
    for (const text of patterns.map((pattern) => pattern.text).toSorted()) {
      states += text.length - commonLength(previous, text);
      previous = text;
      for (const character of text) {
        const code = character.charCodeAt(0);
        if (this.#columns[code] === 0) this.#columns[code] = columns++;
      }
    }
    for (let capital = 0x41; ignoresCase && capital <= 0x5a; capital++)
      this.#columns[capital] = this.#columns[capital + 0x20] ?? 0;
    this.#width = columns;
    this.#next = new Int32Array(states * columns);
    for (const pattern of patterns) this.#add(pattern);
    this.#complete();
  }

  /** The state after one more character. 0 is the beginning, where no part of a pattern was met. */
  next(state: number, character: number): number {
    return this.#next[state * this.#width + (this.#columns[character] ?? 0)] ?? 0;
  }

  /** The longest pattern that ends with the last character. */
  endingAt(state: number): Pattern | undefined {
    return this.#ending[state];
  }

  /** Removes the states that another one holds: what it meets from now on, that meets too. */
  reduce(states: Set<number>): void {
    for (const state of states)
      for (let held = this.#shorter[state] ?? 0; held > 0; held = this.#shorter[held] ?? 0)
        states.delete(held);
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

  /** Leads each state, where its patterns do not go on, to the longest beginning of a pattern that the text ends with. */
  #complete(): void {
    const shorter = new Int32Array(this.#ending.length);
    this.#shorter = shorter;
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

/** How many characters two texts begin with in common. */
function commonLength(one: string, other: string): number {
  let length = 0;
  while (length < one.length && one[length] === other[length]) length++;
  return length;
}
