/** Counts the tokens that an answer of the Messages API reports, as it streams by. */

/** A longer line cannot be one that reports usage. Characters. */
const MAX_LINE = 256 * 1024;

interface Usage {
  input_tokens?: unknown;
  output_tokens?: unknown;
  cache_creation_input_tokens?: unknown;
  cache_read_input_tokens?: unknown;
}

export class UsageCounter {
  readonly #decoder = new TextDecoder();
  readonly #seen = { input: 0, output: 0, written: 0, read: 0 };
  #line = "";
  #long = false;

  add(bytes: Uint8Array): void {
    const [first = "", ...rest] = this.#decoder.decode(bytes, { stream: true }).split("\n");
    this.#grow(first);
    for (const next of rest) {
      this.#read();
      this.#grow(next);
    }
  }

  /** Tokens so far. One that was read from the cache counts a tenth, as in the price. */
  get tokens(): number {
    this.#read();
    const { input, output, written, read } = this.#seen;
    return input + output + written + Math.ceil(read / 10);
  }

  #grow(text: string): void {
    if (this.#line.length + text.length > MAX_LINE) this.#long = true;
    this.#line = this.#long ? "" : this.#line + text;
  }

  /** Either a line of the stream's events or the whole of an answer that is no stream. */
  #read(): void {
    const line = this.#line;
    const long = this.#long;
    this.#line = "";
    this.#long = false;
    if (long || !line.includes('"usage"')) return;
    try {
      const event: { usage?: Usage; message?: { usage?: Usage } } = JSON.parse(line.replace(/^data: ?/, ""));
      this.#take(event.message?.usage ?? event.usage);
    } catch {
      // A line of another kind that has the word in it.
    }
  }

  /** What an event reports is the total so far, and not every event reports all of it. */
  #take(usage: Usage | undefined): void {
    const seen = this.#seen;
    const larger = (before: number, now: unknown) =>
      typeof now === "number" ? Math.max(before, now) : before;
    seen.input = larger(seen.input, usage?.input_tokens);
    seen.output = larger(seen.output, usage?.output_tokens);
    seen.written = larger(seen.written, usage?.cache_creation_input_tokens);
    seen.read = larger(seen.read, usage?.cache_read_input_tokens);
  }
}
