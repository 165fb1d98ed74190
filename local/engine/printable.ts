/**
 * Text of a sandbox's, or with one in it, for a log or a terminal: what would end a line, move the cursor or turn the
 * writing round is written as its number, so that no text can pass for a line of the log. Lines behind the first are
 * indented.
 */
export function printable(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu, (character) =>
      character === "\n" || character === "\t"
        ? character
        : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
    )
    .replaceAll("\n", "\n    ");
}
