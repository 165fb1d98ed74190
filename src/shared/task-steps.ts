/**
 * The lines of a task's log. What an agent says is text of a model, which may look like anything: a call and a failure are told
 * by how their lines begin, and no other line begins so.
 */

/** Begins a call: `→ Edit src/app.ts`, `→ Bash: npm test`. */
export const CALL = "→ ";

/** Begins the failure of a call. */
export const FAILURE = "  failed: ";

/** Stands before the lines of an agent that was started by another. */
export const NESTED = "    ";

/** What no line of text begins with. */
const MARKS = /^[\s\p{Cf}→]+/u;

/** A line of text. */
export function textLine(text: string): string {
  return oneLine(text).replace(MARKS, "");
}

/** The line of a call. */
export function callLine(call: string): string {
  return CALL + textLine(call);
}

/** The line of a failure. */
export function failureLine(why: string): string {
  return FAILURE + oneLine(why);
}

export interface TaskStep {
  kind: "call" | "failure" | "said";
  /** Of a call: the tool's name. */
  tool?: string;
  text: string;
  isNested: boolean;
}

/** A line as it was written. */
export function stepOf(line: string): TaskStep {
  if (line.startsWith(FAILURE)) return { kind: "failure", text: line.trim(), isNested: false };
  const isNested = line.startsWith(NESTED);
  const text = isNested ? line.slice(NESTED.length) : line;
  if (!text.startsWith(CALL)) return { kind: "said", text: text.trim(), isNested };
  const [, tool = "", what = ""] = /^(\S+?)(?::? (.*))?$/s.exec(text.slice(CALL.length)) ?? [];
  return { kind: "call", tool, text: what, isNested };
}

/** Without control characters, of which some would write over the line's beginning where it is shown. */
function oneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, " ");
}
