/**
 * The part of an escape sequence after the escape character. Sequences set colors, titles, character sets and modes, and move
 * the cursor.
 */
const AFTER_ESCAPE = /^(?:\[[0-?]*[ -/]*[@-~]|\]\P{Cc}*\p{Cc}?|[ -/]+[0-~]|[0-Z\\^-~])/u;

/** A text without escape sequences, in linear time: each sequence is searched only up to the next escape character. */
export function stripEscapes(text: string): string {
  const [first = "", ...escaped] = text.split("\u{1b}");
  return first + escaped.map((part) => part.replace(AFTER_ESCAPE, "")).join("");
}
