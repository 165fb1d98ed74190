/** Reads a Messages API request as it streams: its size, its maximum output tokens, and the hosts that the API connects to. */
import { JSONReader, type Path } from "./json-reader.ts";

/** Assumed for a request without a plausible `max_tokens`: more than any model produces. */
const MAX_TOKENS = 128_000;
/** Until the API reports the tokens, this many request bytes count as one token. Text has about four bytes per token. */
const BYTES_PER_TOKEN = 3;
/** To read a part of the JSON takes at most as long as to read this many bytes of a string. */
const BYTES_PER_PART = 16;
/** Types of sources for images and documents that the API need not fetch by URL. */
const SOURCES = new Set(["base64", "text", "content", "file"]);
/** Tools that the agent itself runs, and tool search. The API runs all others, which may reach any host. */
const AGENT_TOOLS = /^(custom|null|(bash|text_editor|computer|memory|tool_search_tool)_\w+)$/;

/**
 * Parses JSON: a text search for `"max_tokens"` would match inside a conversation, and miss escaped letters. If a name occurs
 * twice, both values count, because some parsers use the first and others the last.
 */
export class RequestMeter {
  #bytes = 0;
  #maxTokens: number | undefined;
  #reachedHost: string | undefined;
  readonly #reader = new JSONReader({
    open: (path, isList) => {
      if (path[0] === "mcp_servers" && (path.length > 1 || !isList)) this.#reachedHost ??= "mcp_servers";
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

  /** How much work reading was, as the number of a string's bytes that would take as long. */
  get work(): number {
    return this.#bytes + BYTES_PER_PART * this.#reader.parts;
  }

  get inputTokens(): number {
    return Math.ceil(this.#bytes / BYTES_PER_TOKEN);
  }

  /** The part of the request that makes the API connect to a host; undefined if no part so far does. */
  get reachedHost(): string | undefined {
    return this.#reader.isMalformed ? "invalid JSON" : this.#reachedHost;
  }

  #value(path: Path, read: () => string | undefined): void {
    const [first, , third] = path;
    if (path.length === 1 && first === "max_tokens") {
      const value = Number(read() || Number.NaN);
      if (value >= 0) this.#maxTokens = Math.max(value, this.#maxTokens ?? 0);
    } else if (first === "mcp_servers" && path.length > 1) this.#reachedHost ??= "mcp_servers";
    else if (first === "tools") {
      const type = path.length === 3 && third === "type" ? read() : "custom";
      if (type === undefined || !AGENT_TOOLS.test(type))
        this.#reachedHost ??= `the tool ${(type ?? "?").replace(/\W/g, "?")}`;
    } else if (path.at(-2) === "source" && !isOpaque(path)) {
      const name = path.at(-1);
      if (name === "url" || (name === "type" && !SOURCES.has(read() ?? "")))
        this.#reachedHost ??= "a source by URL";
    }
  }
}

/** Whether the path is in the input of a tool call, which is only text to the API. */
function isOpaque(path: Path): boolean {
  return path[0] === "messages" && path.indexOf("input") >= 4;
}
