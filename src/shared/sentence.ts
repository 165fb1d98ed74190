/**
 * A sentence with parts that are not text, for example a link: the texts and the parts, in order. A page shows them one after the
 * other, and escapes the texts like any other text.
 */
export function sentence<Parts extends readonly unknown[]>(
  strings: TemplateStringsArray,
  ...parts: Parts
): readonly (string | Parts[number])[] {
  return strings.flatMap((text, index) => (index < parts.length ? [text, parts[index]] : [text]));
}
