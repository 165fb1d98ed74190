/** Replaces characters that change the writing direction with their code points, because they can make a text look like another. */

const ORDERING = /\p{Bidi_Control}/gu;

export function escapeOrdering(text: string): string {
  return text.replace(
    ORDERING,
    (character) => `\u27e8U+${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`,
  );
}
