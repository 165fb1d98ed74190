/** Reads the token counts in a response of the Messages API, and computes the tokens to charge for the response. */
import { JSONReader, type Path } from "./json-reader.ts";
import type { RequestMeter } from "./model-request.ts";

const FIELDS = [
  "input_tokens",
  "output_tokens",
  "cache_creation_input_tokens",
  "cache_read_input_tokens",
] as const;
type Field = (typeof FIELDS)[number];
type Counts = Partial<Record<Field, number>>;

/** The iterations whose tokens the sums of a report include, at least in part. */
const INCLUDED = new Set(["message", "fallback_message"]);

/** Blocks of the model that sampled. Other blocks, such as a server tool's result or a fallback, may lead to another sampling. */
const MODEL_BLOCKS = new Set(["text", "thinking", "redacted_thinking", "tool_use"]);
/** No count is larger, so that a sum of counts is exact. */
const MAX_COUNT = 1e12;
const DATA = "data:";
const [SPACE, LINE_FEED, OPEN_OBJECT] = [0x20, 0x0a, 0x7b];

export class UsageCounter {
  /** A report's sums. Events report totals, but not every event reports all totals. */
  readonly #sums: Counts = {};
  /** Of a report's iterations: the tokens that its sums include, and the tokens of all other iterations, such as compactions. */
  readonly #included: Counts = {};
  readonly #others: Counts = {};
  #iterations: { type?: string | undefined; counts: Counts }[] = [];
  #reader = this.#newReader();
  /** Undefined until the response begins. */
  #isStream: boolean | undefined;
  /** The beginning of the current line of a stream, which tells whether the rest is data. */
  #prefix = "";
  #hasReport = false;
  /** The blocks of a stream after which the API may have sampled a model again. */
  #handovers = 0;
  /** Whether the last event of a stream has arrived. Before that, the report is incomplete. */
  #isEnded = false;

  add(bytes: Uint8Array): void {
    if (this.#isStream === undefined) {
      const first = bytes.find((byte) => byte > SPACE);
      if (first === undefined) return;
      this.#isStream = first !== OPEN_OBJECT;
    }
    if (this.#isStream) this.#addLines(bytes);
    else this.#reader.add(bytes);
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
   * The tokens to charge. The tokens of an incomplete response are unknown, so it costs the most that the request may use.
   * @param isWhole whether the response was read to its end
   */
  charge(request: RequestMeter, isWhole: boolean): number {
    if (this.#hasReport && (this.#isStream ? this.#isEnded : isWhole)) return this.tokens;
    // A response without streaming reports its tokens at its end, a stream those of its first input at the start.
    const known = this.#isStream ? this.tokens - this.#countOf("output_tokens") : 0;
    const isKnown = known > 0 && !request.hasServerLoop;
    const input = isKnown ? known : Math.max(known, request.inputTokens);
    // Only a stream shows how often the API has sampled a model.
    const isStream = this.#isStream ?? request.isStreamed;
    const samplings = isStream ? Math.min(this.#handovers + 1, request.samplings) : request.samplings;
    return samplings * (input + Math.max(request.maxTokens, this.#countOf("output_tokens")));
  }

  /**
   * The sums leave out some iterations: always compactions and advisors, and with fallbacks all but the last one. So the
   * larger count of both is charged, and all iterations that no sum includes.
   */
  #countOf(field: Field): number {
    this.#addIterations();
    return Math.max(this.#sums[field] ?? 0, this.#included[field] ?? 0) + (this.#others[field] ?? 0);
  }

  #addLines(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const lineFeed = bytes.indexOf(LINE_FEED, at);
      const end = lineFeed < 0 ? bytes.length : lineFeed;
      while (at < end && this.#prefix.length < DATA.length) this.#prefix += String.fromCharCode(bytes[at++]!);
      if (this.#prefix === DATA) this.#reader.add(bytes.subarray(at, end));
      if (lineFeed >= 0) this.#endLine();
      at = end + 1;
    }
  }

  #endLine(): void {
    // An empty line ends the event. An event that is not JSON must not hide the next one.
    if (!this.#reader.isBetweenValues && this.#prefix.trim() === "") this.#reader = this.#newReader();
    this.#prefix = "";
  }

  #newReader(): JSONReader {
    return new JSONReader({
      open: (path) => this.#open(usagePath(path)),
      value: (path, read) => {
        if (path.length === 1 && path[0] === "type") this.#isEnded ||= read() === "message_stop";
        else if (path.length === 2 && path[0] === "content_block" && path[1] === "type") {
          if (!MODEL_BLOCKS.has(read() ?? "")) this.#handovers++;
        } else this.#value(usagePath(path), read);
      },
    });
  }

  #open(path: Path | undefined): void {
    if (path?.[0] !== "iterations") return;
    // Each report has all iterations so far.
    if (path.length === 1) this.#addIterations();
    else if (path.length === 2) this.#iterations.push({ counts: {} });
  }

  #value(path: Path | undefined, read: () => string | undefined): void {
    if (path?.length === 1) {
      if (raise(this.#sums, path[0], read)) this.#hasReport = true;
    } else if (path?.length === 3 && path[0] === "iterations") {
      const iteration = this.#iterations.at(-1);
      if (!iteration) return;
      if (path[2] === "type") iteration.type = read();
      else raise(iteration.counts, path[2], read);
    }
  }

  /** Adds up the iterations of the current report. */
  #addIterations(): void {
    for (const field of FIELDS) {
      let [included, others] = [0, 0];
      for (const { type = "", counts } of this.#iterations)
        if (INCLUDED.has(type)) included += counts[field] ?? 0;
        else others += counts[field] ?? 0;
      this.#included[field] = Math.max(this.#included[field] ?? 0, included);
      this.#others[field] = Math.max(this.#others[field] ?? 0, others);
    }
    this.#iterations = [];
  }
}

/** The path within the report of a response or event. A tool's input has a longer path, so it cannot look like a report. */
function usagePath(path: Path): Path | undefined {
  if (path[0] === "usage") return path.slice(1);
  return path[0] === "message" && path[1] === "usage" ? path.slice(2) : undefined;
}

/** @returns whether this is a field of a report */
function raise(counts: Counts, name: string | undefined, read: () => string | undefined): boolean {
  const field = FIELDS.find((known) => known === name);
  if (!field) return false;
  const count = Math.ceil(Number(read()));
  if (count > 0) counts[field] = Math.max(counts[field] ?? 0, Math.min(count, MAX_COUNT));
  return true;
}
