/** Serves plain HTTP requests, as the rows of a table describe them. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { finished } from "node:stream/promises";
import type * as z from "zod/mini";
import { confinePaths } from "./confinement.ts";
import { FileError, failureOf } from "./file-error.ts";
import { addNearest } from "./nearest.ts";
import { type Call, FAILED, type Policy, type Row, failedPath, headerOf } from "./operations.ts";
import type { QueuedResult } from "./change-queue.ts";
import type { PathField } from "./shapes.ts";

export interface Exchange<One extends Row = Row> {
  request: IncomingMessage;
  response: ServerResponse;
  json: One["up"] extends z.ZodMiniType ? z.output<One["up"]> : undefined;
  isClientWaiting(): boolean;
  begin(result: z.output<One["result"]>, length?: number): ServerResponse;
}

type Handler<One extends Row> = (
  call: Call<One>,
  exchange: Exchange<One>,
) => Promise<One["down"] extends "none" ? Changed<One, z.input<One["result"]>> : void>;

type Changed<One extends Row, Result> = One extends { changesState: true }
  ? QueuedResult<Result, PathField<One["input"]["shape"]>>
  : Result;

type AnyRow = Row & Partial<Policy>;
type Rows = Readonly<Record<string, AnyRow>>;

/** The type of the handlers. A route without a handler does not compile. */
export type Handlers<Table extends Rows> = {
  [Route in Table[keyof Table]["route"]]: Handler<Extract<Table[keyof Table], { route: Route }>>;
};

const DRAIN_MS = 5000;

export function serveOperation<Table extends Rows>(
  table: Table,
  handlers: Handlers<Table>,
  request: IncomingMessage,
  response: ServerResponse,
  around: Around = (_row, _call, work) => work(),
): Promise<void> | undefined {
  const target = request.url ?? "";
  if (!URL.canParse(target, "http://sandboxd")) return undefined;
  const { pathname, searchParams } = new URL(target, "http://sandboxd");
  const route = `${request.method} ${pathname}`;
  const row = Object.values(table).find((candidate) => candidate.route === route);
  const handler = handlers[route as keyof typeof handlers] as Handle | undefined;
  if (!row || !handler) return undefined;
  const call = row.input.safeParse(Object.fromEntries(searchParams));
  if (!call.success) return (async () => void response.writeHead(400).end("invalid parameters\n"))();
  const handle: Handle = (data, exchange) =>
    around(row, data, async () => {
      await confinePaths(row, data);
      return await handler(data, exchange);
    });
  return respond(row, handle, call.data, request, response);
}

/** Wraps the work of every request. The compiler requires the `id` of every row that changes something. */
type Around = (row: AnyRow, call: { id?: string }, work: () => Promise<unknown>) => Promise<unknown>;

type Handle = (call: Record<string, unknown>, exchange: unknown) => Promise<unknown>;

async function respond(
  row: Row,
  handle: Handle,
  call: Record<string, unknown>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const begin = (result: object, length?: number) => {
    const fields = Object.entries(result).map(([field, value]) => [headerOf(field), String(value)]);
    const headers = Object.fromEntries(fields);
    return response.writeHead(200, length === undefined ? headers : { ...headers, "content-length": length });
  };
  try {
    const json =
      typeof row.up === "object"
        ? row.up.parse(JSON.parse(String(await bytesOfBody(request, MAX_JSON_BYTES))))
        : undefined;
    const isClientWaiting = () => !response.destroyed;
    const value = await handle(call, { request, response, json, isClientWaiting, begin });
    if (row.down === "none") sendJSON(response, 200, value);
  } catch (error) {
    if (response.headersSent) return void response.destroy();
    // Reads the rest of the request first: a client that is still sending might not see the response if the connection closed.
    await finished(request.resume(), { signal: AbortSignal.timeout(DRAIN_MS) }).catch(() => undefined);
    const failure = failureOf(error);
    sendJSON(response, FAILED, await addNearest(failure, failedPath(row, call, failure)));
  }
}

/** Returns a signal that aborts when the client disconnects, or after `ms` milliseconds. */
export function abortOnClose(response: ServerResponse, ms?: number): AbortSignal {
  const abort = new AbortController();
  response.once("close", () => abort.abort());
  return ms === undefined ? abort.signal : AbortSignal.any([abort.signal, AbortSignal.timeout(ms)]);
}

/** The request's body as chunks. If the caller stops reading early, the body stays open. */
export function bodyOf(request: IncomingMessage): AsyncIterable<Buffer> {
  return request.iterator({ destroyOnReturn: false });
}

const MAX_JSON_BYTES = 32 * 1024 * 1024;

/** The chunks of a body with at most `max` bytes. @throws {FileError} `too_large` */
export async function* limitBytes(
  body: AsyncIterable<Buffer> | Iterable<Buffer>,
  max: number,
): AsyncGenerator<Buffer> {
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > max) throw new FileError({ problem: "too_large" });
    yield chunk;
  }
}

/** @throws {FileError} `too_large` */
export async function bytesOfBody(request: IncomingMessage, max: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of limitBytes(bodyOf(request), max)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function sendJSON(response: ServerResponse, status: number, value: unknown): void {
  const body = JSON.stringify(value);
  response
    .writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) })
    .end(body);
}
