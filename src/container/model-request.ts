/** Reads from a passing request to the Messages API how large it is, and how many tokens the model may answer with. */

/** Assumed for a request without a plausible `max_tokens`: more than any model answers with. */
const MOST_TOKENS = 128_000;

/** Longer names and numbers of members are ignored, bytes. */
const KEPT = 100;

/** Bytes of a request that are charged as one token while the API has not reported its tokens; text takes about four. */
const BYTES_PER_TOKEN = 3;

const SPACE = 0x20;
const [QUOTE, BACKSLASH, COLON, COMMA] = [0x22, 0x5c, 0x3a, 0x2c];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * Reads JSON as it streams by, and looks only at the members of the outermost object. A search for the text `"max_tokens"`
 * would find it anywhere in a conversation, and miss it where one of its letters is escaped.
 */
export class RequestMeter {
  #bytes = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;
  /** The member's name or, behind its colon, its value, while they are short. */
  #text: number[] = [];
  #name = "";
  #maxTokens: number | undefined;

  add(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    for (const byte of bytes) this.#take(byte);
  }

  /** Tokens that the model may answer with at the most. */
  get maxTokens(): number {
    return Math.min(this.#maxTokens ?? MOST_TOKENS, MOST_TOKENS);
  }

  /** Tokens of the request itself, estimated from its size. */
  get inputTokens(): number {
    return Math.ceil(this.#bytes / BYTES_PER_TOKEN);
  }

  #take(byte: number): void {
    if (this.#inString) {
      this.#keep(byte);
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) this.#inString = false;
      return;
    }
    switch (byte) {
      case QUOTE:
        this.#inString = true;
        this.#keep(byte);
        break;
      case COLON:
        if (this.#depth === 1) this.#name = this.#value();
        break;
      case COMMA:
        if (this.#depth === 1) this.#member();
        break;
      case OPEN_LIST:
      case OPEN_OBJECT:
        this.#depth += 1;
        break;
      case CLOSE_LIST:
      case CLOSE_OBJECT:
        if (this.#depth === 1) this.#member();
        this.#depth -= 1;
        break;
      default:
        if (byte > SPACE) this.#keep(byte);
    }
  }

  #keep(byte: number): void {
    if (this.#depth === 1 && this.#text.length <= KEPT) this.#text.push(byte);
  }

  #member(): void {
    const value = Number(this.#value() || Number.NaN);
    // Parsers differ in which of two members of one name counts, so the larger value is taken.
    if (this.#name === "max_tokens" && value >= 0) this.#maxTokens = Math.max(value, this.#maxTokens ?? 0);
    this.#name = "";
  }

  /** The text since the last separator: what a JSON string says, anything else as it is written. */
  #value(): string {
    const text = String.fromCharCode(...this.#text);
    this.#text = [];
    try {
      return String(JSON.parse(text));
    } catch {
      return "";
    }
  }
}
