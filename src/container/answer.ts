/**
 * What the control server inside a sandbox answers, as the SDK passes it on: user code can put a server of its own in the
 * place of that, which answers anything. The SDK reads such answers too, and throws a TypeError for those it cannot.
 */
import { damaged } from "../shared/errors.ts";

/** The answer of a call. @throws {ToolError} `damaged` when it is not what the control server answers */
export async function answerOf<T>(call: Promise<T>, isAnswer: (answer: unknown) => boolean): Promise<T> {
  let answer: T;
  try {
    answer = await call;
  } catch (error) {
    throw error instanceof TypeError ? misanswered(error) : error;
  }
  if (!isAnswer(answer)) throw misanswered();
  return answer;
}

export function misanswered(cause?: unknown): Error {
  const error = damaged(
    "its control server does not answer as it should; something else may be in its place",
  );
  error.cause = cause;
  return error;
}

export function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}
