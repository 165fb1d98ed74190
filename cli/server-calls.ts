/** Calls to the server, with the command line's errors. */
import { Connection, type Results, type ToolResult, refusal as refusalOf } from "../client/connection.ts";
import * as errors from "../client/errors.ts";
import * as runs from "../client/follow.ts";
import type { ToolName } from "../client/tool-types.ts";
import { CommandError } from "./exit.ts";
import { postRPC } from "./ready.ts";
import { type ServerAddress, VARIABLES_FILE } from "./server-address.ts";
import { note } from "./print.ts";
import * as texts from "./texts.ts";

export type Answer = ToolResult<Record<string, unknown>>;

export class Server {
  readonly address: ServerAddress;
  readonly #connection: Connection;

  private constructor(address: ServerAddress, connection: Connection) {
    this.address = address;
    this.#connection = connection;
  }

  /** @throws {CommandError} if nothing responds, or the token is refused */
  static async connect(given: ServerAddress, results?: Results): Promise<Server> {
    const address = await withAcceptedToken(given);
    const server = new Server(address, connectionTo(address, results));
    await server.#withExplainedErrors(() => server.#connection.open());
    return server;
  }

  /** Calls a tool. @throws {CommandError} with the tool's error */
  call(name: string, args: Record<string, unknown> = {}): Promise<Answer> {
    return this.#withExplainedErrors(
      () => this.#connection.call(name as ToolName, args as never) as Promise<Answer>,
    );
  }

  /** Calls `get_result`; retries for a while. */
  readResult(input: runs.ReadInput): Promise<Answer> {
    return this.#withExplainedErrors(() => runs.readResult(this.#connection, input, noteRetry));
  }

  async logOf(id: string): Promise<{ isRunning: boolean; bytes: number }> {
    const { data } = await this.readResult({ id, cursor: 0, wait_seconds: 0 });
    return { isRunning: data.state === "running", bytes: Number(data.log_bytes) };
  }

  follow(first: Answer, options: runs.FollowingOptions): Promise<runs.Ended> {
    return this.#withExplainedErrors(() =>
      runs.follow(this.#connection, first, { onRetry: noteRetry, ...options }),
    );
  }

  async *pages(id: string, options: runs.PagesOptions): ReturnType<typeof runs.pages> {
    try {
      yield* runs.pages(this.#connection, id, { onRetry: noteRetry, ...options });
    } catch (error) {
      throw explain(error, this.address);
    }
  }

  tools(): Promise<string[]> {
    return this.#withExplainedErrors(() => this.#connection.tools());
  }

  close(): Promise<void> {
    return this.#connection.close();
  }

  #withExplainedErrors<T>(work: () => Promise<T>): Promise<T> {
    return work().catch((error: unknown) => {
      throw explain(error, this.address);
    });
  }
}

function noteRetry(error: unknown): void {
  note(error instanceof errors.ConnectionError ? texts.RECONNECTING : texts.RETRYING);
}

function connectionTo({ url, token }: ServerAddress, results?: Results): Connection {
  return new Connection({ url, token, clientName: "sandbox-mcp-cli" }, results);
}

/** A server's message on one line. Several lines could look like messages of this program. */
function onOneLine(line: string): string {
  return line.replace(/\s+/g, " ").trim();
}

/** Sends a plain HTTP request with the token. @throws {CommandError} with the response's message, except for 2xx */
export async function http(given: ServerAddress, path: string, init: RequestInit = {}): Promise<Response> {
  const address = await withAcceptedToken(given);
  return connectionTo(address)
    .http(path, init)
    .catch((error: unknown) => {
      throw explain(error, address);
    });
}

/** The address with the token that the server accepts: the previous token, if the server was not restarted after a rotation. */
export async function withAcceptedToken(address: ServerAddress): Promise<ServerAddress> {
  const { tokenBefore, ...rest } = address;
  if (tokenBefore === undefined) return address;
  const isRefused = await postRPC(rest.url, "ping", { authorization: `Bearer ${rest.token}` }).then(
    async (response) => {
      await response.body?.cancel();
      return response.status === 401;
    },
    // The next request reports connection problems.
    () => false,
  );
  return isRefused ? { ...rest, token: tokenBefore } : rest;
}

export function explain(error: unknown, address: ServerAddress): CommandError {
  const translated = translateError(error, address);
  const isTemporary = error instanceof errors.ConnectionError || error instanceof errors.UnavailableError;
  if (!isTemporary || error.runID === undefined) return translated;
  return texts.runDisconnected(translated, onOneLine(error.runID));
}

function translateError(error: unknown, address: ServerAddress): CommandError {
  if (error instanceof CommandError) return error;
  if (error instanceof errors.ConnectionError) return unreachable(error, address);
  if (error instanceof errors.AccessError) return denied(error, address);
  if (error instanceof errors.InputError) return texts.rejectedArguments(onOneLine(error.message));
  if (error instanceof errors.CallError) {
    const kind = error.code === errors.WRONG_ADDRESS ? "unavailable" : "refusedByServer";
    return new CommandError(kind, onOneLine(`${error.message} ${error.hint}`), { cause: error });
  }
  return new CommandError("refusedByServer", String(error));
}

export function unreachable(error: Error, { url, isLocal }: ServerAddress): CommandError {
  let cause = error;
  while (cause.cause instanceof Error) ({ cause } = cause as { cause: Error });
  const reason = "code" in cause && typeof cause.code === "string" ? cause.code : cause.message;
  return texts.noServer(url, onOneLine(reason), isLocal);
}

export function refusal(status: number, body: string, address: ServerAddress): CommandError {
  return explain(refusalOf(address.url, status, body), address);
}

function denied({ code, message }: errors.AccessError, { url, tokenSource }: ServerAddress): CommandError {
  const line = onOneLine(message);
  if (code === "forbidden") return new CommandError("denied", line);
  return texts.tokenRefused(url, tokenSource, line, tokenSource === VARIABLES_FILE);
}
