/** Bytes that may be text, and text that goes into sentences. */

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of UTF-8 bytes without NUL; undefined for any others. */
export function textOf(bytes: Uint8Array): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

/** The same of bytes that may be `cut` in a character, which is left out; with how many bytes the text takes. */
export function wholeText(bytes: Uint8Array, cut: boolean): { text: string; bytes: number } | undefined {
  for (let length = bytes.length; length >= bytes.length - (cut ? 3 : 0) && length >= 0; length--) {
    const text = textOf(bytes.subarray(0, length));
    if (text !== undefined) return { text, bytes: length };
  }
  return undefined;
}

/** A sentence of somebody else's for the end of one of ours, which has a full stop of its own. */
export function clause(sentence: string): string {
  return sentence.trim().replace(/[.\s]+$/, "");
}
