/** Answers plain HTTP requests by the rows of a table. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { finished } from "node:stream/promises";
import type * as z from "zod/mini";
import { FileError, failureOf } from "./file-error.ts";
import { withNearest } from "./nearest.ts";
import { type Call, FAILED, type Row, headerOf } from "./operations.ts";

/** A request that is being answered. */
export interface Exchange<One extends Row = Row> {
  request: IncomingMessage;
  response: ServerResponse;
  /** The body of the request, where that is JSON. */
  json: One["up"] extends z.ZodMiniType ? z.output<One["up"]> : undefined;
  /** Whether somebody still waits for the answer. */
  isClientWaiting(): boolean;
  /** Begins an answer that is not JSON; its bytes go to the response. @param length of them, where it is known */
  begin(result: z.output<One["result"]>, length?: number): ServerResponse;
}

type Handler<One extends Row> = (
  call: Call<One>,
  exchange: Exchange<One>,
) => Promise<One["down"] extends "none" ? z.input<One["result"]> : void>;

type Rows = Readonly<Record<string, Row>>;

/** What does each request: a route without a handler does not compile. */
export type Handlers<Table extends Rows> = {
  [Route in Table[keyof Table]["route"]]: Handler<Extract<Table[keyof Table], { route: Route }>>;
};

/** How long the rest of a refused request is taken before it is answered, milliseconds. */
const DRAIN_MS = 5000;

/** Answers a request; undefined for one that is not in the table. */
export function serveOperation<Table extends Rows>(
  table: Table,
  handlers: Handlers<Table>,
  request: IncomingMessage,
  response: ServerResponse,
  around: Around = (_row, work) => work(),
): Promise<void> | undefined {
  const target = request.url ?? "";
  if (!URL.canParse(target, "http://sandboxd")) return undefined;
  const { pathname, searchParams } = new URL(target, "http://sandboxd");
  const route = `${request.method} ${pathname}`;
  const row = Object.values(table).find((one) => one.route === route);
  const handler = handlers[route as keyof typeof handlers] as Handle | undefined;
  if (!row || !handler) return undefined;
  const call = row.input.safeParse(Object.fromEntries(searchParams));
  if (!call.success) return (async () => void response.writeHead(400).end("no such call\n"))();
  const handle: Handle = (data, exchange) => around(row, () => handler(data, exchange));
  return respond(row, handle, call.data, request, response);
}

/** Does the work of a request; what all changes have in common is done here. */
type Around = (row: Row, work: () => Promise<unknown>) => Promise<unknown>;

type Handle = (call: object, exchange: unknown) => Promise<unknown>;

async function respond(
  row: Row,
  handle: Handle,
  call: object,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const begin = (result: object, length?: number) => {
    const fields = Object.entries(result).map(([field, value]) => [headerOf(field), String(value)]);
    const headers = Object.fromEntries(fields);
    return response.writeHead(200, length === undefined ? headers : { ...headers, "content-length": length });
  };
  try {
    const json = typeof row.up === "object" ? row.up.parse(await jsonOf(request)) : undefined;
    const isClientWaiting = () => !response.destroyed;
    const value = await handle(call, { request, response, json, isClientWaiting, begin });
    if (row.down === "none") sendJSON(response, 200, value);
  } catch (error) {
    if (response.headersSent) return void response.destroy();
    // A client whose connection is closed while it sends may not see the answer.
    await finished(request.resume(), { signal: AbortSignal.timeout(DRAIN_MS) }).catch(() => undefined);
    sendJSON(response, FAILED, await withNearest(failureOf(error), call));
  }
}

/** The body, which is not closed when reading it ends early. */
export function bodyOf(request: IncomingMessage): AsyncIterable<Buffer> {
  return request.iterator({ destroyOnReturn: false });
}

/** Bytes of a body of JSON at most. */
const MAX_JSON_BYTES = 32 * 1024 * 1024;

async function jsonOf(request: IncomingMessage): Promise<unknown> {
  return JSON.parse((await bytesOfBody(request, MAX_JSON_BYTES)).toString());
}

/** @throws {FileError} `too_large` */
export async function bytesOfBody(request: IncomingMessage, max: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of bodyOf(request)) {
    bytes += chunk.length;
    if (bytes > max) throw new FileError({ problem: "too_large" });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function sendJSON(response: ServerResponse, status: number, value: unknown): void {
  const body = JSON.stringify(value);
  response
    .writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) })
    .end(body);
}
