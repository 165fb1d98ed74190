/** Reads answers of sandboxd. A user's program may answer in its place: nothing of them is believed or read without a bound. */
import type * as z from "zod/mini";
import { ANSWER_BYTES, FAILED, type FileFailure, failureSchema } from "../../container/sandboxd/protocol.ts";
import { type ToolError, damaged } from "../shared/errors.ts";

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
  if (response.status === 200) return await read(response);
  if (response.status !== FAILED) throw misanswered();
  throw refusal(await jsonOf(response, failureSchema));
}

/** The body of an answer as JSON of a schema. @throws {ToolError} `damaged` */
export async function jsonOf<Schema extends z.ZodMiniType>(
  response: Response,
  schema: Schema,
): Promise<z.infer<Schema>> {
  const text = new TextDecoder().decode(await bytesOf(response, ANSWER_BYTES));
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    throw misanswered();
  }
}

/** The body of an answer. @throws {ToolError} `damaged` when it is longer than so many bytes */
export async function bytesOf(response: Response, max: number): Promise<Uint8Array> {
  const length = response.headers.get("content-length");
  // HTTP bounds the body by its Content-Length. Without one, or with one too large, the bytes are counted as they come.
  if (length !== null && Number(length) <= max) return new Uint8Array(await response.arrayBuffer());
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > max) throw misanswered();
    chunks.push(chunk);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** The error for an answer that breaks the protocol, from sandboxd or a program in its place. */
export function misanswered(): ToolError {
  return damaged(
    "the server's program in it does not answer as it should; something else may be in its place",
  );
}
