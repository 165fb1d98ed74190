/** Reads the token counts in a response of the Messages API, and computes the tokens to charge for the response. */
import { pieceDecoder } from "../shared/text.ts";
import type { RequestMeter } from "./model-request.ts";

/**
 * A field of a usage report. The counter searches the text without parsing it, because a response without streaming is one line
 * of any length, and a gateway may split that line. The model's own text cannot match, because its quotes are escaped. A tool's
 * input that looks like a report can only increase the count.
 */
const FIELD =
  /"(input_tokens|output_tokens|cache_creation_input_tokens|cache_read_input_tokens)"\s{0,20}:\s{0,20}(\d{1,12})/g;

/**
 * The last event of a stream. A tool of the request may be called `message_stop`. So the pattern begins with a line break,
 * which no string in JSON contains.
 */
const LAST_EVENT =
  /[\r\n](?:event: ?message_stop[\r\n]|data: ?\{\s{0,20}"type"\s{0,20}:\s{0,20}"message_stop")/;

/** In tokens, without the beta features of the API. */
const LONGEST_CONTEXT = 200_000;

/** Characters kept of earlier text; longer than any field. */
const KEPT_CHARS = 128;

export class UsageCounter {
  readonly #decode = pieceDecoder();
  readonly #seen = new Map<string, number>();
  #rest = "";
  /** Whether there was a report. A response of `count_tokens` has `input_tokens` without a report, and costs nothing. */
  #hasReport = false;
  /** Whether the last event of a stream has arrived. Before that, the report is incomplete. */
  #isComplete = false;

  add(bytes: Uint8Array): void {
    const text = this.#rest + this.#decode(bytes);
    this.#rest = text.slice(-KEPT_CHARS);
    if (LAST_EVENT.test(text)) this.#isComplete = true;
    const from = this.#hasReport ? 0 : text.indexOf('"usage"');
    if (from < 0) return;
    this.#hasReport = true;
    // Events report totals, but not every event reports all totals. A number that the end of a piece cuts is read again with
    // the next piece.
    for (const [, name = "", digits] of text.slice(from).matchAll(FIELD))
      this.#seen.set(name, Math.max(this.#countOf(name), Number(digits)));
  }

  /** Tokens so far. A token read from the cache counts as a tenth of a token, as in the price. */
  get tokens(): number {
    const cached = Math.ceil(this.#countOf("cache_read_input_tokens") / 10);
    return (
      this.#countOf("input_tokens") +
      this.#countOf("output_tokens") +
      this.#countOf("cache_creation_input_tokens") +
      cached
    );
  }

  /**
   * The tokens to charge. An incomplete response costs the request's input and `max_tokens`, because its tokens are unknown. If the
   * API connects to hosts for the request, the input costs at least the longest context window.
   * @param isWhole whether the response was read to its end
   */
  charge(request: RequestMeter, isWhole: boolean, isStream: boolean): number {
    if (this.#hasReport && (isStream ? this.#isComplete : isWhole)) return this.tokens;
    // A response without streaming reports its tokens at its end. Before that, a tool of the request may look like the report.
    const isKnown = this.#hasReport && isStream;
    const known = isKnown ? this.tokens - this.#countOf("output_tokens") : request.inputTokens;
    const input = request.reachedHost === undefined ? known : Math.max(known, LONGEST_CONTEXT);
    return input + Math.max(request.maxTokens, this.#countOf("output_tokens"));
  }

  #countOf(name: string): number {
    return this.#seen.get(name) ?? 0;
  }
}
