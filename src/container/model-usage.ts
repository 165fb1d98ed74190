/** Counts the tokens that a streaming Messages API response reports, and what the response costs. */
import type { RequestMeter } from "./model-request.ts";

/**
 * A field of a usage report. Matched in the text, because a response without streaming is one line of any length, and a gateway
 * may split it. Quotes in the model's own text are escaped; a tool's input that looks like a report can only increase the
 * count.
 */
const FIELD =
  /"(input_tokens|output_tokens|cache_creation_input_tokens|cache_read_input_tokens)"\s{0,20}:\s{0,20}(\d{1,12})/g;

/** Characters kept of earlier text; longer than any field. */
const KEPT_CHARS = 128;

export class UsageCounter {
  readonly #decoder = new TextDecoder();
  readonly #seen = new Map<string, number>();
  #rest = "";
  /** Whether there was a report. Responses of `count_tokens` have a field of that name and cost nothing. */
  #reports = false;
  /** Whether a stream's last event has come; before that, the report is incomplete. */
  #stopped = false;

  add(bytes: Uint8Array): void {
    const text = this.#rest + this.#decoder.decode(bytes, { stream: true });
    this.#rest = text.slice(-KEPT_CHARS);
    if (text.includes('"message_stop"')) this.#stopped = true;
    const from = this.#reports ? 0 : text.indexOf('"usage"');
    if (from < 0) return;
    this.#reports = true;
    // Events report totals, but not every event reports all of them. A number cut at the end of a piece is read again
    // completely.
    for (const [, name = "", digits] of text.slice(from).matchAll(FIELD))
      this.#seen.set(name, Math.max(this.#of(name), Number(digits)));
  }

  /** Tokens so far. Tokens read from the cache count a tenth, as in the price. */
  get tokens(): number {
    const cached = Math.ceil(this.#of("cache_read_input_tokens") / 10);
    return (
      this.#of("input_tokens") + this.#of("output_tokens") + this.#of("cache_creation_input_tokens") + cached
    );
  }

  /** A response cut off before its report costs `max_tokens`: its tokens are unknown. @param whole whether it was read to its end */
  charge(request: RequestMeter, whole: boolean, isStream: boolean): number {
    if (this.#reports && (isStream ? this.#stopped : whole)) return this.tokens;
    const input = this.#reports ? this.tokens - this.#of("output_tokens") : request.inputTokens;
    return input + Math.max(request.maxTokens, this.#of("output_tokens"));
  }

  #of(name: string): number {
    return this.#seen.get(name) ?? 0;
  }
}
