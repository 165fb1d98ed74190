/**
 * Checks results of the SDK's control server in a sandbox. User code can replace that server. The SDK throws a TypeError for
 * unreadable results.
 */
import { damaged } from "../shared/errors.ts";
import { DAMAGED } from "./texts.ts";

export async function checkResult<T>(call: Promise<T>, isValid: (result: unknown) => boolean): Promise<T> {
  let result: T;
  try {
    result = await call;
  } catch (error) {
    throw error instanceof TypeError ? malformedResponse(error) : error;
  }
  if (!isValid(result)) throw malformedResponse();
  return result;
}

function malformedResponse(cause?: unknown): Error {
  const error = damaged(DAMAGED.controlServer);
  error.cause = cause;
  return error;
}

export function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}
