/** Text from bytes, and text for sentences. */

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of bytes that are UTF-8 without NUL; undefined for any others. */
export function textOf(bytes: Uint8Array): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

/** The same, and the number of its bytes. When `cut`, the bytes may end within a character, which is left out. */
export function wholeText(bytes: Uint8Array, cut: boolean): { text: string; bytes: number } | undefined {
  for (let length = bytes.length; length >= bytes.length - (cut ? 3 : 0) && length >= 0; length--) {
    const text = textOf(bytes.subarray(0, length));
    if (text !== undefined) return { text, bytes: length };
  }
  return undefined;
}

/** The first line of a source, short enough for a list. */
export function titleOf(source: string): string {
  const line = source.trimStart().split("\n", 1)[0] ?? "";
  return line.length > 120 ? `${line.slice(0, 119).toWellFormed()}…` : line;
}

/** A sentence without its full stop, to end another sentence with. */
export function clause(sentence: string): string {
  return sentence.trim().replace(/[.\s]+$/, "");
}

/** `text` as one word of a shell line. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** What an error says, or whatever else was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
