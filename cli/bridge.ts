/**
 * Connects MCP over standard input and output to a server's HTTP endpoint, for clients that start a process.
 *
 * Messages pass unchanged, in the protocol's revisions of 2025 and 2026. After a server restart the bridge reconnects, and the
 * client can continue, because the server stores nothing about MCP sessions.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { JSONRPCMessage, JSONRPCRequest } from "@modelcontextprotocol/client";
import { EventSourceParserStream } from "eventsource-parser/stream";
import { boundResponse, fetchDirectly } from "../client/connection.ts";
import { SandboxError } from "../client/errors.ts";
import { codeOf } from "../container/sandboxd/file-error.ts";
import { parseJSON } from "../src/shared/bounded.ts";
import { messageOf } from "../src/shared/text.ts";
import { CommandError, type ExitName } from "./exit.ts";
import { explain, refusal, unreachable } from "./server-calls.ts";
import type { ServerAddress } from "./server-address.ts";
import { BRIDGE_BROKE, BRIDGE_BROKE_BEFORE_RESPONSE, tokenChanged } from "./texts.ts";

interface BridgeOptions {
  /** Finds the server, or starts a local one if no URL is configured. @throws {CommandError} if it cannot be reached */
  locate(): Promise<ServerAddress>;
  /** Whether the server still runs. Otherwise another program may listen at its address, and must not get the token. */
  isCurrent?(address: ServerAddress): boolean;
  send(message: JSONRPCMessage): Promise<void>;
  log(line: string): void;
}

/** How long a request waits for a server that responded before and may be restarting, in milliseconds. */
const RESTART_MS = 30_000;

/**
 * How long a request waits before the server's first response, in milliseconds. This limit is shorter, because clients abandon a
 * process that is silent for long.
 */
const FIRST_MS = 5000;

/** JSON-RPC's first code for errors of an implementation. */
const SERVER_ERROR = -32000;

/** The field of a request's params that the header Mcp-Name repeats (SEP-2243). */
const NAMED: Record<string, string> = {
  "tools/call": "name",
  "prompts/get": "name",
  "resources/read": "uri",
  "tasks/get": "taskId",
  "tasks/update": "taskId",
  "tasks/cancel": "taskId",
};

const VERSION_KEY = "io.modelcontextprotocol/protocolVersion";

type RequestID = JSONRPCRequest["id"];

export class Bridge {
  readonly #options: BridgeOptions;
  readonly #open = new Map<RequestID, AbortController>();
  readonly #inProgress = new Set<Promise<void>>();
  /** The version from `initialize`; clients of 2026 send it in every request. */
  #version: string | undefined;
  #address: ServerAddress | undefined;
  readonly #closed = new AbortController();
  #hasReached = false;
  #failure: { kind: ExitName; words: string } | undefined;

  constructor(options: BridgeOptions) {
    this.#options = options;
  }

  /** Why the last message did not reach the server; undefined if the message did. */
  get failure(): ExitName | undefined {
    return this.#failure?.kind;
  }

  /** Forwards a client's message to the server, and every response to the client. */
  forward(message: JSONRPCMessage): void {
    const forwarding: Promise<void> = this.#forward(message).finally(() =>
      this.#inProgress.delete(forwarding),
    );
    this.#inProgress.add(forwarding);
  }

  async #forward(message: JSONRPCMessage): Promise<void> {
    if ("method" in message && message.method === "notifications/cancelled") {
      // In the revision of 2026, closing the stream cancels a request. In the revision of 2025 this message cancels it, so the
      // bridge also forwards the message to the server.
      const id = message.params?.requestId as RequestID;
      this.#open.get(id)?.abort();
      this.#open.delete(id);
    }
    const request = "method" in message && "id" in message ? (message as JSONRPCRequest) : undefined;
    const abort = new AbortController();
    if (request) this.#open.set(request.id, abort);
    const signal = AbortSignal.any([abort.signal, this.#closed.signal]);
    try {
      await this.#deliver(message, request, signal);
    } catch (error) {
      if (signal.aborted) return;
      const words = messageOf(error);
      // The client gets every error. The log gets an error only if it differs from the previous one.
      if (words !== this.#failure?.words) this.#options.log(words);
      this.#failure = { kind: error instanceof CommandError ? error.kind : "unavailable", words };
      if (request && this.#open.has(request.id)) await this.#fail(request.id, words);
    } finally {
      if (request && this.#open.get(request.id) === abort) this.#open.delete(request.id);
    }
  }

  async waitUntilSettled(): Promise<void> {
    while (this.#inProgress.size > 0) await Promise.allSettled(this.#inProgress);
  }

  /** Closes all open requests. Their work on the server continues. */
  close(): void {
    this.#closed.abort();
  }

  async #deliver(
    message: JSONRPCMessage,
    request: JSONRPCRequest | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { response, address } = await this.#post(message, signal);
    const type = response.headers.get("content-type") ?? "";
    if (type.startsWith("text/event-stream") && response.body) {
      const events = response.body
        .pipeThrough(new TextDecoderStream())
        .pipeThrough(new EventSourceParserStream());
      try {
        for await (const { data } of events) if (data !== "") await this.#reply(JSON.parse(data), request);
      } catch (error) {
        if (signal.aborted || error instanceof SandboxError) throw error;
      }
    } else {
      const body = await response.text();
      const reply = parseJSON(body);
      if (isMessage(reply)) await this.#reply(reply, request);
      else if (!response.ok) throw httpError(response.status, body, address);
    }
    this.#failure = undefined;
    if (request && this.#open.has(request.id)) throw new Error(BRIDGE_BROKE_BEFORE_RESPONSE);
  }

  /** @throws Error if no server can be reached in time, or if the connection broke and a tool call may have arrived */
  async #post(
    message: JSONRPCMessage,
    signal: AbortSignal,
  ): Promise<{ response: Response; address: ServerAddress }> {
    const deadline = Date.now() + (this.#hasReached ? RESTART_MS : FIRST_MS);
    let refused: { response: Response; address: ServerAddress } | undefined;
    for (;;) {
      const { isCurrent } = this.#options;
      if (this.#address && isCurrent?.(this.#address) === false) this.#address = undefined;
      const address = (this.#address ??= await this.#options.locate());
      const { url, token } = address;
      if (refused?.address.token === token) return refused;
      await refused?.response.body?.cancel();
      try {
        const init = {
          method: "POST",
          headers: { ...this.#headers(message), authorization: `Bearer ${token}` },
          body: JSON.stringify(message),
          signal,
        };
        const response = boundResponse(await fetchDirectly(fetch, url, init));
        this.#hasReached = true;
        if (response.status !== 401) return { response, address };
        // A restarted server may have another token, stored in the same place.
        refused = { response, address };
        this.#address = undefined;
      } catch (error) {
        if (signal.aborted) throw error;
        if (error instanceof SandboxError) throw explain(error, address);
        this.#address = undefined;
        // A tool call that may have arrived is not repeated. Other messages may arrive twice.
        const isSafe = wasNotSent(error) || !("method" in message && message.method === "tools/call");
        if (!isSafe) throw new Error(BRIDGE_BROKE, { cause: error });
        if (Date.now() > deadline) throw unreachable(error as Error, address);
        await pause(500, undefined, { signal });
      }
    }
  }

  #headers(message: JSONRPCMessage): Record<string, string> {
    const headers: Record<string, string> = {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
    };
    const params = "params" in message ? message.params : undefined;
    const stated = params?._meta?.[VERSION_KEY];
    if (typeof stated === "string" && "method" in message) {
      headers["mcp-protocol-version"] = stated;
      headers["mcp-method"] = message.method;
      const name = params?.[NAMED[message.method] ?? ""];
      if (typeof name === "string") headers["mcp-name"] = headerText(name);
    } else if (this.#version !== undefined) headers["mcp-protocol-version"] = this.#version;
    return headers;
  }

  async #reply(message: JSONRPCMessage, request: JSONRPCRequest | undefined): Promise<void> {
    const isFinal = request !== undefined && !("method" in message);
    // If the server could not parse the request, its error has no id.
    if (isFinal && "error" in message && message.id !== request.id) message = { ...message, id: request.id };
    if (isFinal) {
      // A cancelled request gets no response.
      if (!this.#open.has(request.id)) return;
      const version = "result" in message ? message.result.protocolVersion : undefined;
      if (request.method === "initialize" && typeof version === "string") this.#version = version;
    }
    await this.#options.send(message);
    // Only now, because a response that is nested too deeply cannot be sent. Then the client gets an error.
    if (isFinal) this.#open.delete(request.id);
  }

  #fail(id: RequestID, message: string): Promise<void> {
    this.#open.delete(id);
    return this.#options.send({ jsonrpc: "2.0", id, error: { code: SERVER_ERROR, message } });
  }
}

function wasNotSent(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"].includes(codeOf(cause) ?? "");
}

/** A header value as in SEP-2243: base64 if it cannot be sent unchanged. */
function headerText(value: string): string {
  const isPlain = /^[\x21-\x7e]+( +[\x21-\x7e]+)*$/.test(value) && !value.startsWith("=?base64?");
  return isPlain ? value : `=?base64?${Buffer.from(value).toString("base64")}?=`;
}

function isMessage(value: unknown): value is JSONRPCMessage {
  return typeof value === "object" && value !== null && "jsonrpc" in value;
}

function httpError(status: number, body: string, address: ServerAddress): CommandError {
  const error = refusal(status, body, address);
  return status === 401 ? tokenChanged(error) : error;
}
