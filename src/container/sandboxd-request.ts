/**
 * Sends requests to sandboxd and reads its responses. A user program may respond in its place, so nothing is trusted or read
 * without a limit.
 */
import type * as z from "zod/mini";
import { FAILED, type Row, headerOf, queryOf } from "../../container/sandboxd/operations.ts";
import { type FileFailure, SMALL_RESPONSE_BYTES, failureSchema } from "../../container/sandboxd/shapes.ts";
import { RESPONSE_JSON, parseBounded } from "../shared/bounded.ts";
import { type ToolError, damaged } from "../shared/errors.ts";
import { isEncoded, readBounded } from "../shared/stream-bytes.ts";
import type { Requesting } from "./requests.ts";
import { DAMAGED } from "./texts.ts";

/** @param refusal makes the error for a failure reported by sandboxd @throws {ToolError} that error, or `damaged` */
async function readResponse<T>(
  response: Response,
  read: (response: Response) => Promise<T>,
  refusal: (failure: FileFailure) => ToolError,
): Promise<T> {
  if (response.status === FAILED) throw refusal(await jsonOf(response, failureSchema));
  if (response.status === 200 && !isEncoded(response)) return await read(response);
  await response.body?.cancel();
  throw malformedResponse();
}

export type Body = Uint8Array | ReadableStream | string | undefined;

export function partsOf(row: Row, given: object): { call: Record<string, unknown>; body: Body } {
  const { body, ...call }: { body?: unknown } = given;
  return { call, body: typeof row.up === "object" ? JSON.stringify(body) : (body as Body) };
}

/** Makes a row's request, without time limits and retries. @param refusal makes the error for a failure reported by sandboxd */
export function requestOperation(
  fetch: Requesting,
  row: Row,
  { call, body }: ReturnType<typeof partsOf>,
  signal: AbortSignal,
  refusal: (failure: FileFailure) => ToolError,
): Promise<unknown> {
  const [method = "", pathname = ""] = row.route.split(" ");
  return fetch(`${pathname}?${queryOf(row, call)}`, { method, body }, signal, (response) =>
    readResponse(response, (complete) => resultOf(complete, row, call), refusal),
  );
}

/** Reads JSON, or header fields with the body's bytes or stream. @throws {ToolError} `damaged` for anything else */
async function resultOf(response: Response, row: Row, call: object): Promise<unknown> {
  const maxBytes = typeof row.maxBytes === "number" ? row.maxBytes : row.maxBytes(call as never);
  if (row.down === "none") {
    const result = await jsonOf(response, row.result, maxBytes);
    if (row.fits && !row.fits(result as never, call as never)) throw malformedResponse();
    return result;
  }
  const { headers, body } = response;
  const words = Object.keys(row.result.shape).map((field) => [field, headers.get(headerOf(field))]);
  const { success, data } = row.result.safeParse(Object.fromEntries(words));
  if (success && row.down === "bytes") return { ...data, bytes: await bytesOf(response, maxBytes) };
  const length = headers.get("content-length") ?? undefined;
  if (success && body) return { ...data, body, length: length && Number(length) };
  await body?.cancel();
  throw malformedResponse();
}

/** A response's body, parsed by a schema. @throws {ToolError} `damaged`, also if it is too long */
export async function jsonOf<Schema extends z.ZodMiniType>(
  response: Response,
  schema: Schema,
  maxBytes = SMALL_RESPONSE_BYTES,
): Promise<z.infer<Schema>> {
  const text = new TextDecoder().decode(await bytesOf(response, maxBytes));
  const { success, data } = schema.safeParse(parseBounded(text, RESPONSE_JSON));
  if (!success) throw malformedResponse();
  return data;
}

/** A response's body. @throws {ToolError} `damaged` if it is too long */
export async function bytesOf(response: Response, maxBytes: number): Promise<Uint8Array> {
  const bytes = await readBounded(response, maxBytes);
  if (!bytes) throw malformedResponse();
  return bytes;
}

/** The error for a response that breaks the protocol, from sandboxd or a program in its place. */
export function malformedResponse(): ToolError {
  return damaged(DAMAGED.sandboxd);
}
