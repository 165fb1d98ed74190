/** The parts of an output that callers see: its beginning, its end, and the size of the omitted middle. */

import { stripEscapes } from "../shared/escape-sequences.ts";
import { cutText, decodeText } from "../shared/text.ts";

/** One output stream. `head` is everything if nothing was omitted. */
export interface ShownOutput {
  head: string;
  tail: string;
  /** Bytes of the whole stream. */
  bytes: number;
  /** Bytes between `head` and `tail`. */
  omitted: number;
}

/** The stream as one text; a line in the middle says how much is omitted. */
export function shownText(shown: ShownOutput): string {
  const { head, tail, omitted } = shown;
  return omitted === 0 ? head + tail : `${head}\n${omittedText(shown)}\n${tail}`;
}

export function omittedText({ omitted, bytes }: Pick<ShownOutput, "omitted" | "bytes">): string {
  return `[... ${omitted} of ${bytes} bytes omitted ...]`;
}

/** The last line is searched for in the last LINE_BYTES of an output. At most LINE_CHARS of it are shown. */
const LINE_BYTES = 4 * 1024;
const LINE_CHARS = 200;

const CONTROLS = /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu;

/** The last line that is not blank, as plain text; empty if there is none. */
export function lastLine(end: Uint8Array): string {
  const text = stripEscapes(decodeText(end.subarray(-LINE_BYTES), "both"));
  // Progress bars overwrite their line after a carriage return.
  const line =
    text.split(/[\r\n]/).findLast((candidate) => candidate.replace(CONTROLS, "").trim() !== "") ?? "";
  return cutText(line.replaceAll("\t", " ").replace(CONTROLS, "\u{fffd}").trim(), LINE_CHARS);
}
