/** The most bytes of parts that are joined. Larger parts stay separate, because a copy would take more time than it saves. */
export const JOINED_BYTES = 32 * 1024;

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of UTF-8 bytes without NUL; undefined for other bytes. */
export function textOf(bytes: Uint8Array): string | undefined {
  return bytes.includes(0) ? undefined : decodeStrictly(bytes);
}

/** The text of UTF-8 bytes, which may have NUL; undefined for other bytes. */
export function decodeStrictly(bytes: Uint8Array): string | undefined {
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

/** The ends at which bytes were cut out of a longer text, so that a character may be incomplete there. */
type CutEnds = "none" | "start" | "end" | "both";

/** Like `textOf`, with the number of bytes. An incomplete character at a cut end is dropped. */
export function wholeText(bytes: Uint8Array, cut: CutEnds): { text: string; bytes: number } | undefined {
  const complete = wholeCharacters(bytes, cut);
  const text = textOf(complete);
  return text === undefined ? undefined : { text, bytes: complete.length };
}

const lenient = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

/** Drops an incomplete character at a cut end. Invalid UTF-8 becomes U+FFFD, and a byte order mark stays. */
export function decodeText(bytes: Uint8Array, cut: CutEnds): string {
  return lenient.decode(wholeCharacters(bytes, cut));
}

/** How many bytes a character has that begins with the byte `lead`. */
export function characterLength(lead: number): number {
  if (lead >= 0xf0) return 4;
  if (lead >= 0xe0) return 3;
  return lead >= 0xc0 ? 2 : 1;
}

/** Drops a partial character at a cut end. */
export function wholeCharacters(bytes: Uint8Array, cut: CutEnds): Uint8Array {
  if (cut === "none") return bytes;
  if (cut === "both") return wholeCharacters(wholeCharacters(bytes, "start"), "end");
  if (cut === "start") {
    let start = 0;
    while (start < 3 && start < bytes.length && ((bytes[start] ?? 0) & 0xc0) === 0x80) start++;
    return bytes.subarray(start);
  }
  // A lead byte in the last three bytes starts a partial character if its sequence is longer than the rest.
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back] ?? 0;
    if (byte < 0x80) return bytes;
    if (byte < 0xc0) continue;
    return characterLength(byte) > back ? bytes.subarray(0, -back) : bytes;
  }
  return bytes;
}

/**
 * Decodes a stream that arrives in pieces. If a piece ends inside a character, the character comes with the next piece. A call
 * without a piece returns the rest. Invalid UTF-8 becomes U+FFFD, and a byte order mark stays.
 */
export function pieceDecoder(): (piece?: Uint8Array) => string {
  const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });
  return (piece) => decoder.decode(piece, { stream: piece !== undefined });
}

/** In UTF-16 units. Longer lines are split, because an incomplete line is kept in memory and joined with each piece. */
const MAX_LINE = 16 * 1024;

/** Like `pieceDecoder`, but returns lines. If a piece ends inside a line, the line comes with a later piece. */
export function lineDecoder(): (piece?: Uint8Array) => string[] {
  const decode = pieceDecoder();
  let rest = "";
  return (piece) => {
    const lines = (rest + decode(piece)).split("\n");
    const last = lines.pop() ?? "";
    const isCut = piece !== undefined && last.length <= MAX_LINE;
    rest = isCut ? last : "";
    return isCut ? lines : [...lines, last];
  };
}

/**
 * The first `units` UTF-16 units of a text, or the last ones if it is cut at its start. Never contains half a surrogate pair, because
 * some clients cannot parse an answer with one: a half at the cut is dropped, others become U+FFFD.
 */
export function cutText(text: string, units: number, cutAt: "start" | "end" = "end"): string {
  if (text.length <= units) return text.toWellFormed();
  const cut =
    cutAt === "end"
      ? dropHalfPair(text.slice(0, units))
      : text.slice(text.length - units).replace(/^[\udc00-\udfff]/, "");
  return cut.toWellFormed();
}

/** At most `units` UTF-16 units of a text. Ends with `…` if it was cut. */
export function shortened(text: string, units: number): string {
  return text.length > units ? `${cutText(text, units - 1)}…` : text.toWellFormed();
}

/** Drops half of a surrogate pair at the end. */
export function dropHalfPair(text: string): string {
  return text.replace(/[\ud800-\udbff]$/, "");
}

export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const [first] = parts;
  if (parts.length === 1 && first) return first;
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Adds bytes to the end of a list. Joins small parts, because each part takes memory. */
export function addPart(parts: Uint8Array[], bytes: Uint8Array): void {
  const last = parts.at(-1);
  if (last && last.length + bytes.length <= JOINED_BYTES) parts[parts.length - 1] = joinBytes([last, bytes]);
  else parts.push(bytes);
}

export function titleOf(source: string): string {
  const line = source.trimStart().split("\n", 1)[0] ?? "";
  return shortened(line, 120);
}

/** A sentence without its full stop, for use at the end of another sentence. */
export function clause(sentence: string): string {
  // With the lookbehind, long rows of dots and spaces take linear time.
  return sentence.trim().replace(/(?<![.\s])[.\s]+$/, "");
}

export function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Like `quote`, but for people: without unnecessary quotation marks. */
export function shellWord(text: string): string {
  return /^[\w./:=@+-]+$/.test(text) ? text : quote(text);
}

export function pluralize(count: number, unit: string): string {
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** How much a saved state holds. */
export function savedSize(files: number, bytes: number): string {
  return `${pluralize(files, "file")}, ${pluralize(bytes, "byte")}`;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
