/**
 * How text that a sandbox chose is shown beside the server's own words, so that it cannot pass for them. A name becomes one word, a
 * sentence stays on its line, and an output stands in a fence that it cannot end.
 */
import { randomLetters } from "./names.ts";

/** Controls of terminals and of the direction of writing, what ends a line, and what no font shows. Half of a surrogate pair is no character. */
export const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** A name that cannot be taken for more than one word, nor for a label of the server's. */
const PLAIN_NAME = /^(?:(?!\p{Default_Ignorable_Code_Point})[\p{L}\p{M}\p{N}._/+@%=~-])+$/u;

/** A text on one line, with an escape of JSON's in place of each character that would not be seen, or would move what is. */
export function visible(text: string): string {
  return text.replace(HIDDEN, escaped);
}

/** Data as JSON that means the same and shows everything. */
export function visibleJSON(value: unknown, indent?: number): string {
  return JSON.stringify(value, null, indent).split("\n").map(visible).join("\n");
}

/** The name of a file, a variable, a branch or the like: as it is where it is one plain word, else as a string of JSON. */
export function shownName(name: string): string {
  return PLAIN_NAME.test(name) ? name : visibleJSON(name);
}

function escaped(character: string): string {
  const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
  const units = Array.from({ length: character.length }, (_, at) => character.charCodeAt(at));
  return short ?? units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("");
}

/** A time to the second, milliseconds since the epoch or in ISO 8601. */
export function shownTime(time: number | string): string {
  return new Date(time).toISOString().replace(/\.\d+Z$/, "Z");
}

/** Lines that only a fence keeps apart from the server's. */
const LINE_BREAK = /[\n\v\f\r\u0085\u2028\u2029]/;

/** Whether a text is one line, which can stand behind its label. */
export function isLine(text: string): boolean {
  return !LINE_BREAK.test(text);
}

const FENCE = "```";

/**
 * A text in a fence. One that holds a fence itself, or what looks like one, gets a fence with random letters: models do not count
 * backticks, and nothing that was printed before can know the letters.
 */
export function fenced(text: string): string {
  const looks = text.normalize("NFKC").replace(HIDDEN, "");
  const fence = looks.includes(FENCE) ? FENCE + randomLetters(8) : FENCE;
  return `${fence}\n${text}${text.endsWith("\n") ? "" : "\n"}${fence}`;
}
