/**
 * Text from a sandbox, made safe for logs and terminals. Characters that would end a line, move the cursor or change the writing
 * direction become numbers. So no text can imitate a log line. All lines after the first are indented.
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
