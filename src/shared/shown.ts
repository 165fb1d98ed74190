/**
 * Shows text chosen by a sandbox so that it cannot imitate the server's own text. A name becomes one word, a sentence stays on
 * one line, and output goes into a fence that it cannot end.
 */
import { randomLetters } from "./names.ts";

/** Control characters, line breaks, invisible characters, marks that change the writing direction, and lone surrogates. */
export const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** A name that cannot be mistaken for several words, or for a label of the server. */
const PLAIN_NAME = /^(?:(?!\p{Default_Ignorable_Code_Point})[\p{L}\p{M}\p{N}._/+@%=~-])+$/u;

/** A text on one line. Characters that are invisible, or that move other characters, become JSON escapes. */
export function makeVisible(text: string): string {
  return text.replace(HIDDEN, escapeCharacter);
}

export function toVisibleJSON(value: unknown, indent?: number): string {
  return JSON.stringify(value, null, indent).split("\n").map(makeVisible).join("\n");
}

/** A name of a file, variable, branch or the like: unchanged if it is one plain word, else as a JSON string. */
export function shownName(name: string): string {
  return PLAIN_NAME.test(name) ? name : toVisibleJSON(name);
}

function escapeCharacter(character: string): string {
  const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
  const units = Array.from({ length: character.length }, (_, at) => character.charCodeAt(at));
  return short ?? units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("");
}

/** A time to the second, from milliseconds since the epoch or ISO 8601. */
export function shownTime(time: number | string): string {
  return new Date(time).toISOString().replace(/\.\d+Z$/, "Z");
}

/** All characters at which Python's `splitlines` begins a line. */
// oxlint-disable-next-line no-control-regex
const LINE_BREAK = /[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]/;

export function isLine(text: string): boolean {
  return !LINE_BREAK.test(text);
}

const FENCE = "```";

/** Three backticks or similar characters, also with invisible characters between them. */
const LOOKS_LIKE_FENCE = new RegExp(`(?:[\`\\u1fef\\uff40]${HIDDEN.source}*){3}`, "u");

/**
 * A text in a fence. If the text contains a fence or a similar line, the fence gets random letters, which the text cannot know.
 * More backticks would not help, because models do not count them.
 */
export function putInFence(text: string): string {
  const fence = LOOKS_LIKE_FENCE.test(text) ? FENCE + randomLetters(8) : FENCE;
  return `${fence}\n${text}${text.endsWith("\n") ? "" : "\n"}${fence}`;
}
