/** The tokens to charge for a response of the Messages API. */
import { pieceDecoder } from "../shared/text.ts";
import type { RequestMeter } from "./model-request.ts";

/**
 * In a usage report. Searched without parsing, because a response without streaming is one line of any length, and a gateway may
 * split it. The model's own text cannot match, because its quotes are escaped. A tool's input can only increase the count.
 */
const FIELD =
  /"(input_tokens|output_tokens|cache_creation_input_tokens|cache_read_input_tokens)"\s{0,20}:\s{0,20}(\d{1,12})/g;

/** The end of a stream. A tool may be called `message_stop`, so the pattern begins with a line break, which JSON strings lack. */
const LAST_EVENT =
  /[\r\n](?:event: ?message_stop[\r\n]|data: ?\{\s{0,20}"type"\s{0,20}:\s{0,20}"message_stop")/;

/** Longer than any field. */
const KEPT_CHARS = 128;

export class UsageCounter {
  readonly #decode = pieceDecoder();
  readonly #seen = new Map<string, number>();
  #rest = "";
  /** A response of `count_tokens` has `input_tokens` without a report, and costs nothing. */
  #hasReport = false;
  /** Before the last event of a stream, the report is incomplete. */
  #isComplete = false;

  add(bytes: Uint8Array): void {
    const text = this.#rest + this.#decode(bytes);
    this.#rest = text.slice(-KEPT_CHARS);
    if (LAST_EVENT.test(text)) this.#isComplete = true;
    const from = this.#hasReport ? 0 : text.indexOf('"usage"');
    if (from < 0) return;
    this.#hasReport = true;
    // Not every event reports all totals. A number that the end of a piece cuts is read again with the next piece.
    for (const [, name = "", digits] of text.slice(from).matchAll(FIELD))
      this.#seen.set(name, Math.max(this.#countOf(name), Number(digits)));
  }

  /** A token read from the cache counts as a tenth, as in the price. */
  get tokens(): number {
    const cached = Math.ceil(this.#countOf("cache_read_input_tokens") / 10);
    return (
      this.#countOf("input_tokens") +
      this.#countOf("output_tokens") +
      this.#countOf("cache_creation_input_tokens") +
      cached
    );
  }

  /** A response that ends before its report costs `max_tokens`. @param isWhole whether the response was read to its end */
  charge(request: RequestMeter, isWhole: boolean, isStream: boolean): number {
    if (this.#hasReport && (isStream ? this.#isComplete : isWhole)) return this.tokens;
    const input = this.#hasReport ? this.tokens - this.#countOf("output_tokens") : request.inputTokens;
    return input + Math.max(request.maxTokens, this.#countOf("output_tokens"));
  }

  #countOf(name: string): number {
    return this.#seen.get(name) ?? 0;
  }
}
