/** What follows the escape character in a terminal's sequences for colors, cursor movements, titles, character sets and modes. */
const AFTER_ESCAPE = /^(?:\[[0-?]*[ -/]*[@-~]|\]\P{Cc}*\p{Cc}?|[ -/]+[0-~]|[0-Z\\^-~])/u;

/**
 * A text without a terminal's escape sequences. Takes time in proportion to the text, whatever a sandbox has printed: each sequence is
 * looked for up to the next escape character only.
 */
export function withoutEscapes(text: string): string {
  const [first = "", ...escaped] = text.split("\u{1b}");
  return first + escaped.map((part) => part.replace(AFTER_ESCAPE, "")).join("");
}
