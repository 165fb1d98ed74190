/** Counts the tokens that an answer of the Messages API reports, as it streams by, and says what an answer costs. */
import type { RequestMeter } from "./model-request.ts";

/**
 * A field of a usage report. It is looked for in the text as it comes, and not in parsed lines: an answer that is no
 * stream is one line of any length, and a gateway may break it into many. What the model says is in strings, where a
 * quote has a backslash before it; a tool's input that looks like a report can only make the count higher.
 */
const FIELD =
  /"(input_tokens|output_tokens|cache_creation_input_tokens|cache_read_input_tokens)"\s{0,20}:\s{0,20}(\d{1,12})/g;

/** Characters kept of what was read, more than the longest field. */
const KEPT_CHARS = 128;

export class UsageCounter {
  readonly #decoder = new TextDecoder();
  readonly #seen = new Map<string, number>();
  #rest = "";
  /** Whether there was a report: the answer of `count_tokens` has a field of that name, and costs nothing. */
  #reports = false;
  /** Whether a stream's last event has come, before which the report is incomplete. */
  #stopped = false;

  add(bytes: Uint8Array): void {
    const text = this.#rest + this.#decoder.decode(bytes, { stream: true });
    this.#rest = text.slice(-KEPT_CHARS);
    if (text.includes('"message_stop"')) this.#stopped = true;
    const from = this.#reports ? 0 : text.indexOf('"usage"');
    if (from < 0) return;
    this.#reports = true;
    // Events report totals, and not every event reports all of them. A number that is cut at the end of a piece is read
    // again as a whole.
    for (const [, name = "", digits] of text.slice(from).matchAll(FIELD))
      this.#seen.set(name, Math.max(this.#of(name), Number(digits)));
  }

  /** Tokens so far. One that was read from the cache counts a tenth, as in the price. */
  get tokens(): number {
    const cached = Math.ceil(this.#of("cache_read_input_tokens") / 10);
    return (
      this.#of("input_tokens") + this.#of("output_tokens") + this.#of("cache_creation_input_tokens") + cached
    );
  }

  /**
   * Tokens to charge for the answer. One that broke off before its report costs `max_tokens`: nothing says how much of
   * them the model had written when the agent hung up.
   * @param whole whether the answer was read to its end
   */
  charge(request: RequestMeter, whole: boolean, isStream: boolean): number {
    if (this.#reports && (isStream ? this.#stopped : whole)) return this.tokens;
    const input = this.#reports ? this.tokens - this.#of("output_tokens") : request.inputTokens;
    return input + Math.max(request.maxTokens, this.#of("output_tokens"));
  }

  #of(name: string): number {
    return this.#seen.get(name) ?? 0;
  }
}
