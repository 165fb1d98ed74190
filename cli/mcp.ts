/** Calls to the server: tools by MCP, files by plain HTTP. */
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";
import description from "../package.json" with { type: "json" };
import { CommandError } from "./exit.ts";
import { type ServerAddress, VARIABLES_FILE } from "./server.ts";
import { startLine } from "./places.ts";

/** The longest that a call waits for a run, seconds: what every server allows. */
export const WAIT_SECONDS = 45;

/** A call that waits so long has been lost. */
const CALL_TIMEOUT_MS = 2 * WAIT_SECONDS * 1000;

/** What a tool answered. */
export interface Answer {
  data: Record<string, unknown>;
  content: CallToolResult["content"];
}

export class Server {
  readonly address: ServerAddress;
  readonly #client: Client;

  private constructor(address: ServerAddress, client: Client) {
    this.address = address;
    this.#client = client;
  }

  /**
   * @param results `raw` leaves what terminals print as it is
   * @throws {CommandError} when nothing answers there, or the token is refused
   */
  static async connect(given: ServerAddress, results: "structured" | "raw" = "structured"): Promise<Server> {
    const address = await accepted(given);
    const url = new URL(address.url);
    url.searchParams.set("results", results);
    const requestInit = { headers: { authorization: `Bearer ${address.token}` } };
    const client = new Client({ name: "sandbox-mcp-cli", version: description.version });
    try {
      await client.connect(new StreamableHTTPClientTransport(url, { requestInit }));
    } catch (error) {
      throw explained(error, address);
    }
    return new Server(address, client);
  }

  /** Calls a tool. @throws {CommandError} with what it said when it failed */
  async call(name: string, args: Record<string, unknown> = {}): Promise<Answer> {
    let result: CallToolResult;
    try {
      const options = { timeout: CALL_TIMEOUT_MS };
      result = (await this.#client.callTool({ name, arguments: args }, undefined, options)) as CallToolResult;
    } catch (error) {
      throw explained(error, this.address);
    }
    const { content, structuredContent, isError } = result;
    if (isError) throw failed(name, textOf(content));
    return { data: { ...structuredContent }, content };
  }

  async tools(): Promise<string[]> {
    const { tools } = await this.#client.listTools();
    return tools.map(({ name }) => name);
  }

  close(): Promise<void> {
    return this.#client.close();
  }
}

/** What the SDK puts before the reasons why arguments do not fit. */
const INVALID = /^Input validation error: Invalid arguments for tool \w+: /;

function failed(tool: string, answer: string): CommandError {
  const said = sentence(answer);
  const reasons = said.replace(INVALID, "");
  return reasons === said
    ? new CommandError("refusedByServer", said || `${tool} failed.`)
    : new CommandError("usage", `The server does not take what it was given: ${reasons}`);
}

/** What a server said as one line: a line of its own would look like this program's. */
function sentence(said: string): string {
  return said.replace(/\s+/g, " ").trim();
}

export function textOf(content: CallToolResult["content"]): string {
  return content.flatMap((block) => (block.type === "text" ? block.text : [])).join("\n");
}

/**
 * Sends a plain HTTP request with the token.
 * @param path of the server, such as `/sandboxes/default/files/`
 * @throws {CommandError} for every answer but a 2xx, with what it said
 */
export async function http(given: ServerAddress, path: string, init: RequestInit = {}): Promise<Response> {
  const address = await accepted(given);
  let response: Response;
  try {
    response = await fetch(new URL(path, address.url), {
      ...init,
      headers: { ...init.headers, authorization: `Bearer ${address.token}` },
    });
  } catch (error) {
    throw explained(error, address);
  }
  if (response.ok) return response;
  throw refusal(response.status, await response.text(), address);
}

/** The address with the token that the server takes: the one before, where it was not started again since a rotation. */
export async function accepted(address: ServerAddress): Promise<ServerAddress> {
  const { tokenBefore, ...rest } = address;
  if (tokenBefore === undefined) return address;
  const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
  const isRefused = await fetch(rest.url, {
    method: "POST",
    headers: {
      authorization: `Bearer ${rest.token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
    },
    body: JSON.stringify(ping),
  }).then(
    async (response) => {
      await response.body?.cancel();
      return response.status === 401;
    },
    // What is wrong with the connection, the request behind this one says.
    () => false,
  );
  return isRefused ? { ...rest, token: tokenBefore } : rest;
}

function explained(error: unknown, address: ServerAddress): CommandError {
  if (error instanceof CommandError) return error;
  if (!(error instanceof Error)) return new CommandError("refusedByServer", String(error));
  const status = "code" in error && typeof error.code === "number" ? error.code : undefined;
  if (status !== undefined && status >= 400 && status < 600)
    return refusal(status, error.message.replace(/^[^{]*Error POSTing to endpoint: /, ""), address);
  // JSON-RPC's own errors: the server has answered.
  if (status !== undefined && status <= -32000)
    return new CommandError("refusedByServer", sentence(error.message));
  return unreachable(error, address);
}

export function unreachable(error: Error, { url, isLocal }: ServerAddress): CommandError {
  const cause = error.cause instanceof Error ? error.cause : error;
  const reason = "code" in cause && typeof cause.code === "string" ? cause.code : cause.message;
  const remedy = isLocal ? ` Start it with \`${startLine()}\`.` : "";
  return new CommandError("unavailable", `No server answers at ${url} (${reason}).${remedy}`);
}

/** The error that an HTTP answer other than a 2xx is. */
export function refusal(status: number, body: string, { url, tokenSource }: ServerAddress): CommandError {
  const said = errorIn(body);
  if (status === 401) {
    const reason = `${url} does not accept the token of ${tokenSource}: ${said || "401"}`;
    // It reads the file when it starts.
    const remedy =
      tokenSource === VARIABLES_FILE
        ? "\nIf the token was changed since that server started, start it again."
        : "";
    return new CommandError("denied", reason + remedy);
  }
  if (status === 403) return new CommandError("denied", said || `${url} refuses this (403).`);
  if (status === 404 && (said === "" || said === "Not found"))
    return new CommandError(
      "unavailable",
      `${url} is not the endpoint of a sandbox-mcp server (404): its address ends in /mcp.`,
    );
  return new CommandError(
    "refusedByServer",
    said || `${url} answered ${status}: ${sentence(body.slice(0, 300))}`,
  );
}

/** The words of an error of the server's, by JSON-RPC or plain HTTP; empty for a body that is none. */
function errorIn(body: string): string {
  try {
    const { error, error_description, message, details, problems } = JSON.parse(body);
    if (Array.isArray(problems)) return problems.map((problem) => sentence(String(problem))).join("\n");
    const words = typeof error === "object" && error !== null ? error.message : error;
    const said = [words, error_description ?? message ?? details].filter((part) => typeof part === "string");
    return sentence(said.join(": "));
  } catch {
    return "";
  }
}
