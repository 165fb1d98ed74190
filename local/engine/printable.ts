/** Makes a sandbox's text safe for logs and terminals: it cannot imitate a log line, move the cursor or change the writing direction. */
export function printable(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu, (character) =>
      character === "\n" || character === "\t"
        ? character
        : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
    )
    .replaceAll("\n", "\n    ");
}
