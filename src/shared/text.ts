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
  const whole = cut ? wholeCharacters(bytes, "end") : bytes;
  const text = textOf(whole);
  return text === undefined ? undefined : { text, bytes: whole.length };
}

/** The bytes of a longer text without the character that was cut at their start or end. */
export function wholeCharacters(bytes: Uint8Array, cutAt: "start" | "end"): Uint8Array {
  if (cutAt === "start") {
    let start = 0;
    while (start < 3 && start < bytes.length && ((bytes[start] ?? 0) & 0xc0) === 0x80) start++;
    return bytes.subarray(start);
  }
  // A lead byte within the last three whose sequence runs past the end starts the cut character.
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back] ?? 0;
    if (byte < 0x80) return bytes;
    if (byte < 0xc0) continue;
    const size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
    return size > back ? bytes.subarray(0, -back) : bytes;
  }
  return bytes;
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

/** The same for a person, who needs no quotation marks around a plain word. */
export function shellWord(text: string): string {
  return /^[\w./:=@+-]+$/.test(text) ? text : quote(text);
}

/** What an error says, or whatever else was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
