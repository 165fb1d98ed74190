/** Replaces characters that change the writing direction with their code points, because they can make a text look like another. */

const ORDERING = /[\u202a-\u202e\u2066-\u2069]/g;

export function escapeOrdering(text: string): string {
  return text.replace(
    ORDERING,
    (character) => `\u27e8U+${character.charCodeAt(0).toString(16).toUpperCase()}\u27e9`,
  );
}
