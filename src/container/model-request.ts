/**
 * Reads from a passing request to the Messages API how large it is, how many tokens the model may answer with, and what it has
 * the API connect to.
 */
import { JSONReader, type Path } from "./json-reader.ts";

/** Assumed for a request without a plausible `max_tokens`: more than any model answers with. */
const MAX_TOKENS = 128_000;

/** Bytes of a request that are charged as one token while the API has not reported its tokens; text takes about four. */
const BYTES_PER_TOKEN = 3;

/** Where the API finds an image or a document without fetching it. */
const SOURCES = new Set(["base64", "text", "content", "file"]);

/** The tools that the agent itself runs, and those that search among tools. The API runs others, which may reach any host. */
const OWN_TOOLS = /^(custom|null|(bash|text_editor|computer|memory|tool_search_tool)_\w+)$/;

/**
 * A search for the text `"max_tokens"` would find it anywhere in a conversation, and miss it where one of its letters is
 * escaped. Parsers differ in which of two members of one name counts, so both count.
 */
export class RequestMeter {
  #bytes = 0;
  #maxTokens: number | undefined;
  #reaches: string | undefined;
  readonly #reader = new JSONReader({
    open: (path, isList) => {
      if (path[0] === "mcp_servers" && (path.length > 1 || !isList)) this.#reaches ??= "mcp_servers";
    },
    value: (path, read) => this.#value(path, read),
  });

  add(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    this.#reader.add(bytes);
  }

  /** Tokens that the model may answer with at the most. */
  get maxTokens(): number {
    return this.#reader.isMalformed ? MAX_TOKENS : Math.min(this.#maxTokens ?? MAX_TOKENS, MAX_TOKENS);
  }

  /** Tokens of the request itself, estimated from its size. */
  get inputTokens(): number {
    return Math.ceil(this.#bytes / BYTES_PER_TOKEN);
  }

  /** What of it may have the API connect to hosts that the request chooses; undefined while there is nothing. */
  get reaches(): string | undefined {
    return this.#reader.isMalformed ? "what is no JSON" : this.#reaches;
  }

  #value(path: Path, read: () => string | undefined): void {
    const [first, , third] = path;
    if (path.length === 1 && first === "max_tokens") {
      const value = Number(read() || Number.NaN);
      if (value >= 0) this.#maxTokens = Math.max(value, this.#maxTokens ?? 0);
    } else if (first === "mcp_servers" && path.length > 1) this.#reaches ??= "mcp_servers";
    else if (first === "tools") {
      const type = path.length === 3 && third === "type" ? read() : "custom";
      if (type === undefined || !OWN_TOOLS.test(type))
        this.#reaches ??= `the tool ${(type ?? "?").replace(/\W/g, "?")}`;
    } else if (path.at(-2) === "source" && !isOpaque(path)) {
      const name = path.at(-1);
      if (name === "url" || (name === "type" && !SOURCES.has(read() ?? "")))
        this.#reaches ??= "a source by URL";
    }
  }
}

/** Whether it lies in what a tool was called with, which is only text to the API. */
function isOpaque(path: Path): boolean {
  return path[0] === "messages" && path.indexOf("input") >= 4;
}
