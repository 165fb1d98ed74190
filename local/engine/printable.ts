/** Makes a sandbox's text safe for logs and terminals: no imitated log lines, moves of the cursor or changes of direction. */
export function printable(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu, (character) =>
      character === "\n" || character === "\t"
        ? character
        : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
    )
    .replaceAll("\n", "\n    ");
}
