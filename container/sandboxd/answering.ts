/** Answers plain HTTP requests by a table of calls, whose parameters are a query. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { finished } from "node:stream/promises";
import type * as z from "zod/mini";
import { FileError, failureOf } from "./file-error.ts";
import { withNearest } from "./nearest.ts";
import { FAILED } from "./protocol.ts";

/** Does one call. What it returns is the answer, as JSON; one that returns nothing has answered by itself. */
export type Serve<Call> = (
  call: Call,
  request: IncomingMessage,
  response: ServerResponse,
) => Promise<unknown>;

/** How long the rest of a refused request is taken before it is answered, milliseconds. */
const REST_MS = 5000;

type Schemas = Readonly<Record<string, z.ZodMiniType>>;

export type Table<Calls extends Schemas> = { [Name in keyof Calls]: Serve<z.infer<Calls[Name]>> };

/** Answers a request; undefined for one that is not in the table. */
export function answerBy<Calls extends Schemas>(
  calls: Calls,
  table: Table<Calls>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> | undefined {
  const target = request.url ?? "";
  if (!URL.canParse(target, "http://sandboxd")) return undefined;
  const { pathname, searchParams } = new URL(target, "http://sandboxd");
  const name = `${request.method} ${pathname}`;
  if (!Object.hasOwn(calls, name)) return undefined;
  const call = calls[name]?.safeParse(Object.fromEntries(searchParams));
  return answer(call, table[name] as Serve<unknown>, request, response);
}

async function answer(
  call: z.core.util.SafeParseResult<unknown> | undefined,
  serve: Serve<unknown>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (!call?.success) return void response.writeHead(400).end("no such call\n");
  try {
    const value = await serve(call.data, request, response);
    if (value !== undefined) sendJSON(response, 200, value);
  } catch (error) {
    if (response.headersSent) return void response.destroy();
    // A client whose connection is closed while it sends may not see the answer.
    await finished(request.resume(), { signal: AbortSignal.timeout(REST_MS) }).catch(() => undefined);
    sendJSON(response, FAILED, await withNearest(failureOf(error), call.data));
  }
}

/** The body, which is not closed when reading it ends early. */
export function bodyOf(request: IncomingMessage): AsyncIterable<Buffer> {
  return request.iterator({ destroyOnReturn: false });
}

/** Bytes of a body of JSON at most. */
const MAX_JSON_BYTES = 32 * 1024 * 1024;

export async function jsonOf(request: IncomingMessage): Promise<unknown> {
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
