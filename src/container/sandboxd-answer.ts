/** Reads answers of sandboxd. A user's program may answer in its place: nothing of them is believed or read without a bound. */
import type * as z from "zod/mini";
import {
  FAILED,
  type FileFailure,
  SMALL_ANSWER_BYTES,
  failureSchema,
} from "../../container/sandboxd/protocol.ts";
import { ANSWER_JSON, parseBounded } from "../shared/bounded.ts";
import { type ToolError, damaged } from "../shared/errors.ts";
import { isEncoded, readBounded } from "../shared/pieces.ts";

/**
 * What `read` makes of an answer.
 * @param refusal the error for a failure that sandboxd answers
 * @throws {ToolError} that, or `damaged` for anything else
 */
export async function readAnswer<T>(
  response: Response,
  read: (response: Response) => Promise<T>,
  refusal: (failure: FileFailure) => ToolError,
): Promise<T> {
  if (response.status === FAILED) throw refusal(await jsonOf(response, failureSchema));
  if (response.status === 200 && !isEncoded(response)) return await read(response);
  await response.body?.cancel();
  throw misanswered();
}

/**
 * The body of an answer as JSON of a schema.
 * @throws {ToolError} `damaged`, also for one of more than so many bytes
 */
export async function jsonOf<Schema extends z.ZodMiniType>(
  response: Response,
  schema: Schema,
  maxBytes = SMALL_ANSWER_BYTES,
): Promise<z.infer<Schema>> {
  const text = new TextDecoder().decode(await bytesOf(response, maxBytes));
  const { success, data } = schema.safeParse(parseBounded(text, ANSWER_JSON));
  if (!success) throw misanswered();
  return data;
}

/** The body of an answer. @throws {ToolError} `damaged` when it is longer than so many bytes */
export async function bytesOf(response: Response, maxBytes: number): Promise<Uint8Array> {
  const bytes = await readBounded(response, maxBytes);
  if (!bytes) throw misanswered();
  return bytes;
}

/** The error for an answer that breaks the protocol, from sandboxd or a program in its place. */
export function misanswered(): ToolError {
  return damaged(
    "the server's program in it does not answer as it should; something else may be in its place",
  );
}
