import type { CallerContext } from "./request-context.ts";

/**
 * Counts an answer in the principal's pace, and as memory until the client has read it. Each call does this once. The answer counts as
 * it is sent: a control character takes six characters of JSON, and structured data may be much larger than the text.
 * @param mayWithhold false if the caller cannot repeat the call
 * @throws {ToolError} `quota_exceeded` if the principal has too many unread answers and this one may be withheld
 */
export function countAnswer(
  { memory, turns }: Pick<CallerContext, "memory" | "turns">,
  answer: object,
  mayWithhold: boolean,
): void {
  const chars = JSON.stringify(answer).length;
  turns.countAnswer(chars);
  memory?.addAnswer(chars, mayWithhold);
}
