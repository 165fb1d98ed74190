/** Reads a Messages API request as it streams: its size, its maximum output tokens, and the hosts that the API connects to. */
import { JSONReader, type Path } from "./json-reader.ts";

/** Assumed for a request without a plausible `max_tokens`: more than any model produces. */
const MAX_TOKENS = 128_000;
/** In tokens: what current models accept without beta features. */
const LONGEST_CONTEXT = 1_000_000;
/** The most tokens of an image. Its bytes do not limit them, because an image of one color is small. */
const IMAGE_TOKENS = 5000;
/** Until the API reports the tokens, this many request bytes count as one token. Text has about four bytes per token. */
const BYTES_PER_TOKEN = 3;
/** Types of sources for images and documents that the API need not fetch by URL. */
const SOURCES = new Set(["base64", "text", "content", "file"]);
/** Tools that the agent itself runs. The API runs all others, which may reach any host, except tool search. */
const AGENT_TOOLS = /^(custom|null|(bash|text_editor|computer|memory)_\w+)$/;
const TOOL_SEARCH = /^tool_search_tool_\w+$/;
/** The most times that the API samples a model for one request: the documented limit of its loop for server tools. */
const MAX_SAMPLINGS = 10;
/** The same for a request with `fallbacks`: the first model, and three others. */
const MAX_ATTEMPTS = 4;

/**
 * Parses JSON: a text search for `"max_tokens"` would match inside a conversation, and miss escaped letters. If a name occurs
 * twice, both values count, because some parsers use the first and others the last.
 */
export class RequestMeter {
  #bytes = 0;
  #maxTokens: number | undefined;
  #reachedHost: string | undefined;
  #isStreamed: boolean | undefined;
  #hasServerLoop = false;
  #hasFallbacks = false;
  #images = 0;
  /** Whether the bytes of the request say nothing about the tokens of its input. */
  #hasUnknownInput = false;
  readonly #reader = new JSONReader({
    open: (path, isList) => {
      if (path.length > 1 || !isList) this.#member(path[0]);
    },
    value: (path, read) => this.#value(path, read),
  });

  add(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    this.#reader.add(bytes);
  }

  get maxTokens(): number {
    return this.#reader.isMalformed ? MAX_TOKENS : Math.min(this.#maxTokens ?? MAX_TOKENS, MAX_TOKENS);
  }

  /** The tokens of the input, until the API reports them. */
  get inputTokens(): number {
    const tokens = Math.ceil(this.#bytes / BYTES_PER_TOKEN) + this.#images * IMAGE_TOKENS;
    return this.#hasUnknownInput || this.hasServerLoop ? Math.max(tokens, LONGEST_CONTEXT) : tokens;
  }

  /** Whether the response is a stream, which shows how often the API samples the model. */
  get isStreamed(): boolean {
    return this.#isStreamed === true && !this.#reader.isMalformed;
  }

  /** Whether the API may sample the model again with results that it adds to the input. */
  get hasServerLoop(): boolean {
    return this.#reader.isMalformed || this.#hasServerLoop;
  }

  /** The most times that the API samples a model for the request. Each time costs the whole input. */
  get samplings(): number {
    return this.hasServerLoop ? MAX_SAMPLINGS : this.#hasFallbacks ? MAX_ATTEMPTS : 1;
  }

  /** The part of the request that makes the API connect to a host; undefined if no part so far does. */
  get reachedHost(): string | undefined {
    return this.#reader.isMalformed ? "invalid JSON" : this.#reachedHost;
  }

  /** @param name of a member of the request that has a value */
  #member(name: string | undefined): void {
    if (name === "mcp_servers") this.#reachedHost ??= name;
    if (name === "thread") this.#hasUnknownInput = true;
    else if (name === "fallbacks") this.#hasFallbacks = true;
    else if (name === "mcp_servers" || name === "compaction") this.#hasServerLoop = true;
  }

  #value(path: Path, read: () => string | undefined): void {
    const [first, , third] = path;
    // A fallback may have its own limit.
    if (path.at(-1) === "max_tokens" && (path.length === 1 || first === "fallbacks")) {
      const value = Number(read() || Number.NaN);
      if (value >= 0) this.#maxTokens = Math.max(value, this.#maxTokens ?? 0);
    } else if (path.length === 1 && first === "stream") {
      this.#isStreamed = this.#isStreamed !== false && read() === "true";
    } else if (first === "tools") {
      const type = path.length === 3 && third === "type" ? read() : "custom";
      if (type !== undefined && AGENT_TOOLS.test(type)) return;
      this.#hasServerLoop = true;
      if (type === undefined || !TOOL_SEARCH.test(type))
        this.#reachedHost ??= `the tool ${(type ?? "?").replace(/\W/g, "?")}`;
    } else if (first === "context_management") {
      // An edit that clears parts of the input samples no model. A compaction does.
      if (path.length === 4 && path[3] === "type" && read()?.startsWith("clear_") !== true)
        this.#hasServerLoop = true;
    } else if (path.at(-2) === "source" && !isOpaque(path)) this.#source(path.at(-1), read);
    else if (path.length > 1 || read() !== "null") this.#member(first);
  }

  /** @param name of a member of an image's or document's source */
  #source(name: string | undefined, read: () => string | undefined): void {
    if (name === "media_type") {
      const type = read() ?? "";
      if (type.startsWith("image/")) this.#images++;
      else if (type !== "text/plain") this.#hasUnknownInput = true;
      return;
    }
    const type = name === "type" ? (read() ?? "") : undefined;
    if (name === "url" || (type !== undefined && !SOURCES.has(type))) {
      this.#reachedHost ??= "a source by URL";
      this.#hasUnknownInput = true;
    } else if (type === "file") this.#hasUnknownInput = true;
  }
}

/** Whether the path is in the input of a tool call, which is only text to the API. */
function isOpaque(path: Path): boolean {
  return path[0] === "messages" && path.indexOf("input") >= 4;
}
