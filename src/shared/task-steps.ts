/** The lines of a task's log. Calls and failures have a prefix that an agent's own text cannot have. */

const CALL = "→ ";

const FAILURE = "  failed: ";

export const NESTED = "    ";

const MARKS = /^[\s\p{Cf}→]+/u;

export function textLine(text: string): string {
  return oneLine(text).replace(MARKS, "");
}

export function callLine(call: string): string {
  return CALL + textLine(call);
}

export function failureLine(why: string): string {
  return FAILURE + oneLine(why);
}

interface TaskStep {
  kind: "call" | "failure" | "text";
  tool?: string;
  text: string;
  isNested: boolean;
}

export function stepOf(line: string): TaskStep {
  if (line.startsWith(FAILURE)) return { kind: "failure", text: line.trim(), isNested: false };
  const isNested = line.startsWith(NESTED);
  const text = isNested ? line.slice(NESTED.length) : line;
  if (!text.startsWith(CALL)) return { kind: "text", text: text.trim(), isNested };
  const [, tool = "", what = ""] = /^(\S+?)(?::? (.*))?$/s.exec(text.slice(CALL.length)) ?? [];
  return { kind: "call", tool, text: what, isNested };
}

/** Removes control characters, which could overwrite the line's beginning. */
function oneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, " ");
}
