/**
 * Operations on files and tasks in a sandbox, by requests to sandboxd. User code may listen in place of sandboxd, so every
 * response is checked.
 */
import { DAY_MS } from "../shared/days.ts";
import type * as z from "zod/mini";
import {
  FAILED,
  type FileRequest,
  type FileRow,
  type Input,
  type Policy,
  type Result,
  type Row,
  failedPath,
  fileRequests,
  headerOf,
  queryOf,
} from "../../container/sandboxd/operations.ts";
import {
  type FileFailure,
  SMALL_RESPONSE_BYTES,
  failureSchema,
  listCursor,
} from "../../container/sandboxd/shapes.ts";
import { RESPONSE_VALUES, parseBounded } from "../shared/bounded.ts";
import { type ToolError, damaged, withTimeout } from "../shared/errors.ts";
import { announcedBytes, isEncoded, readBounded } from "../shared/stream-bytes.ts";
import type { Requesting, Reserve } from "./sandboxd.ts";
import { DAMAGED, foreignListCursor, invalidParameters, refusal } from "./texts.ts";

/** The lowest accepted upload speed: a large body gets more time. */
const BYTES_PER_MS = 100;

/** How long a stream and its response may take, in milliseconds: the largest upload takes 15 hours at the lowest accepted speed. */
const STREAM_MS = DAY_MS;

/** Records changes of the workspace, so that it is saved. */
interface Changing {
  noteChange(): void;
}

export class FileOperations {
  readonly #fetch: Requesting;
  readonly #workspace: Changing;

  /** @param fetch `Sandboxd.withWorkspace`, or `request`, which does not count as use */
  constructor(fetch: Requesting, workspace: Changing) {
    this.#fetch = fetch;
    this.#workspace = workspace;
  }

  /**
   * Makes a change only once, even if the request is repeated after a broken connection.
   * @param isConfined whether the path must stay below /workspace and /tmp, also through symbolic links
   * @throws {ToolError} with what failed and why; `no_answer` after the row's time limit
   */
  async call<Name extends FileRequest>(
    name: Name,
    input: Input<Name>,
    { isConfined = false } = {},
  ): Promise<Result<Name>> {
    const row: FileRow & Partial<Policy> = fileRequests[name];
    const { call: given, body } = partsOf(row, input);
    const parameters = { id: crypto.randomUUID(), confined: isConfined, ...given, ...row.always };
    const { data: call } = row.input.safeParse(Object.fromEntries(queryOf(row, parameters)));
    if (!call) throw invalidParameters(row.doing);
    const refuse = (failure: FileFailure) =>
      refusal(row.doing, failedPath(row, call, failure) ?? "", failure);
    try {
      const result = await withTimeLimit(row, body, (signal) =>
        requestOperation(this.#fetch, row, { call, body }, signal, refuse),
      );
      return result as Result<Name>;
    } finally {
      // A failed operation may have changed something.
      if (row.changesState) this.#workspace.noteChange();
    }
  }
}

async function withTimeLimit<T>(
  { timeoutMs }: FileRow,
  body: Body,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const abort = new AbortController();
  const ms = body instanceof ReadableStream ? STREAM_MS : timeoutMs + (body?.length ?? 0) / BYTES_PER_MS;
  try {
    return await withTimeout(ms, work(abort.signal));
  } catch (error) {
    abort.abort();
    throw error;
  }
}

/** @throws {ToolError} if it does not look like a cursor of a result */
export function requireListCursor(given: string | undefined): string | undefined {
  if (given === undefined || listCursor().safeParse(given).success) return given;
  throw foreignListCursor();
}

/** @param refuse makes the error for a failure that sandboxd reports @throws {ToolError} that error, or `damaged` */
async function readResponse<T>(
  response: Response,
  reserve: Reserve,
  read: (response: Response) => Promise<T>,
  refuse: (failure: FileFailure) => ToolError,
): Promise<T> {
  if (response.status === FAILED) throw refuse(await jsonOf(response, reserve, failureSchema));
  if (response.status === 200 && !isEncoded(response)) return await read(response);
  await response.body?.cancel();
  throw malformedResponse();
}

type Body = Uint8Array | ReadableStream | string | undefined;

export function partsOf(row: Row, given: object): { call: Record<string, unknown>; body: Body } {
  const { body, ...call }: { body?: unknown } = given;
  return { call, body: typeof row.up === "object" ? JSON.stringify(body) : (body as Body) };
}

/**
 * Sends the request that a row defines, without time limits and retries. @param refuse makes the error for a failure that
 * sandboxd reports
 */
export function requestOperation(
  fetch: Requesting,
  row: Row,
  { call, body }: ReturnType<typeof partsOf>,
  signal: AbortSignal,
  refuse: (failure: FileFailure) => ToolError,
): Promise<unknown> {
  const [method = "", pathname = ""] = row.route.split(" ");
  return fetch(`${pathname}?${queryOf(row, call)}`, { method, body }, signal, (response, reserve) =>
    readResponse(response, reserve, (complete) => resultOf(complete, reserve, row, call), refuse),
  );
}

/** Reads JSON, or header fields with the body's bytes or stream. @throws {ToolError} `damaged` for anything else */
async function resultOf(response: Response, reserve: Reserve, row: Row, call: object): Promise<unknown> {
  const maxBytes = typeof row.maxBytes === "number" ? row.maxBytes : row.maxBytes(call as never);
  if (row.down === "none") {
    const result = await jsonOf(response, reserve, row.result, maxBytes);
    if (row.fits && !row.fits(result as never, call as never)) throw malformedResponse();
    return result;
  }
  const { headers, body } = response;
  const fields = Object.keys(row.result.shape).map((field) => [field, headers.get(headerOf(field))]);
  const { success, data } = row.result.safeParse(Object.fromEntries(fields));
  if (success && row.down === "bytes") return { ...data, bytes: await bytesOf(response, reserve, maxBytes) };
  if (success && body) return { ...data, body, length: announcedBytes(headers) };
  await body?.cancel();
  throw malformedResponse();
}

async function jsonOf<Schema extends z.ZodMiniType>(
  response: Response,
  reserve: Reserve,
  schema: Schema,
  maxBytes = SMALL_RESPONSE_BYTES,
): Promise<z.infer<Schema>> {
  const text = new TextDecoder().decode(await bytesOf(response, reserve, maxBytes));
  const { success, data } = schema.safeParse(parseBounded(text, RESPONSE_VALUES));
  if (!success) throw malformedResponse();
  return data;
}

async function bytesOf(response: Response, reserve: Reserve, maxBytes: number): Promise<Uint8Array> {
  const bytes = await readBounded(response, { maxBytes, reserve });
  if (!bytes) throw malformedResponse();
  return bytes;
}

/** The error for a response that breaks the protocol, from sandboxd or a program in its place. */
export function malformedResponse(): ToolError {
  return damaged(DAMAGED.sandboxd);
}
