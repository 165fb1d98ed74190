import type { CallerContext } from "./request-context.ts";

/**
 * Counts an answer in the principal's pace, and as memory until the client has read it. Each call does this once.
 * @param chars its size, or an estimate of it. Structured data is about as large as its text
 * @param mayWithhold false if the caller cannot repeat the call
 * @throws {ToolError} `quota_exceeded` if the principal has too many unread answers and this one may be withheld
 */
export function countAnswer(
  { memory, turns }: Pick<CallerContext, "memory" | "turns">,
  chars: number,
  mayWithhold: boolean,
): void {
  turns.countAnswer(chars);
  memory?.addAnswer(chars, mayWithhold);
}
