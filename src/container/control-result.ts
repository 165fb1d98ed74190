/**
 * Checks answers of the control server inside a sandbox as the SDK passes them on. User code can put a server of its own in
 * its place, which may answer anything; the SDK reads such answers too, and throws a TypeError for those it cannot read.
 */
import { damaged } from "../shared/errors.ts";

/** The answer of a call. @throws {ToolError} `damaged` when it is not what the control server answers */
export async function checkedResult<T>(call: Promise<T>, isValid: (result: unknown) => boolean): Promise<T> {
  let result: T;
  try {
    result = await call;
  } catch (error) {
    throw error instanceof TypeError ? malformedResponse(error) : error;
  }
  if (!isValid(result)) throw malformedResponse();
  return result;
}

export function malformedResponse(cause?: unknown): Error {
  const error = damaged(
    "its control server does not answer as it should; something else may be in its place",
  );
  error.cause = cause;
  return error;
}

export function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}
