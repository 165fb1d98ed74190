/** Replaces exact texts, all or none, and returns the change as a unified diff. */
import { createTwoFilesPatch } from "diff";
import { distance } from "fastest-levenshtein";
import { FileError } from "./file-error.ts";
import { DIFF_CHARS, type Edit, EDITED_BYTES, MAX_PLACES, NEAREST_CHARS } from "./shapes.ts";

/** Computing a diff blocks everything else, so after this many milliseconds the result has no diff. */
const DIFF_MS = 1000;
/** Limits of the search for the line most similar to a missing text: milliseconds, and compared characters per line. */
const NEAREST_MS = 200;
const COMPARED_CHARS = 500;

/**
 * @throws FileError `not_text`; `too_large` for the resulting size; `line_breaks`; `absent` with the nearest line; `repeated` with
 * the numbers of the lines that have the text
 */
export function applyEdits(content: Buffer, edits: readonly Edit[], path: string) {
  const before = textOf(content);
  let text = before;
  let replaced = 0;
  for (const [index, { old_text: wanted, new_text: replacement, all }] of edits.entries()) {
    const parts = text.split(wanted);
    const count = parts.length - 1;
    if (count === 0) throw otherBreaks(text, wanted, index + 1) ?? textNotFound(text, wanted, index + 1);
    if (count > 1 && !all) {
      const lines = placesOf(text, wanted).map((at) => lineOf(text, at));
      throw new FileError({ problem: "repeated", edit: index + 1, count, lines });
    }
    replaced += count;
    if (text.length + count * (replacement.length - wanted.length) > EDITED_BYTES)
      throw new FileError({ problem: "too_large" });
    text = parts.join(replacement);
  }
  const bytes = Buffer.from(text);
  if (bytes.length > EDITED_BYTES) throw new FileError({ problem: "too_large" });
  return { bytes, replaced, diff: diffOf(before, text, path) };
}

function textOf(content: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
  } catch {
    throw new FileError({ problem: "not_text" });
  }
}

function placesOf(text: string, wanted: string): number[] {
  const places: number[] = [];
  let at = text.indexOf(wanted);
  while (at >= 0 && places.length < MAX_PLACES) {
    places.push(at);
    at = text.indexOf(wanted, at + wanted.length);
  }
  return places;
}

function lineOf(text: string, at: number): number {
  let line = 1;
  for (let next = text.indexOf("\n"); next >= 0 && next < at; next = text.indexOf("\n", next + 1)) line++;
  return line;
}

function otherBreaks(text: string, wanted: string, edit: number): FileError | undefined {
  const isCRLF = !wanted.includes("\r\n");
  const other = isCRLF ? wanted.replaceAll("\n", "\r\n") : wanted.replaceAll("\r\n", "\n");
  if (other === wanted || !text.includes(other)) return undefined;
  return new FileError({ problem: "line_breaks", edit, code: isCRLF ? "CRLF" : "LF" });
}

function textNotFound(text: string, wanted: string, edit: number): FileError {
  const lines = text.split("\n");
  const line = nearestLine(lines, wanted.split("\n"));
  // Without half of a surrogate pair at the end.
  const nearest = lines[line]?.slice(0, NEAREST_CHARS).replace(/[\ud800-\udbff]$/, "");
  return new FileError({ problem: "absent", edit, lines: [line + 1], nearest });
}

/**
 * The index of the line that the caller probably meant: the first line that differs after the longest match, or the line most
 * similar to the first wanted line.
 */
function nearestLine(lines: readonly string[], wanted: readonly string[]): number {
  const until = performance.now() + NEAREST_MS;
  let longest = 0;
  let nearest = 0;
  for (let start = 0; start < lines.length && performance.now() < until; start++) {
    let same = 0;
    while (same < wanted.length && lines[start + same] === wanted[same]) same++;
    if (same <= longest || start + same >= lines.length) continue;
    if (wanted.slice(0, same).every((line) => line.trim() === "")) continue;
    longest = same;
    nearest = start + same;
  }
  if (longest > 0) return nearest;
  const first = comparable(wanted.find((line) => line.trim() !== "") ?? "");
  let least = Number.POSITIVE_INFINITY;
  for (const [index, line] of lines.entries()) {
    if (performance.now() > until) break;
    const other = comparable(line);
    // The distance cannot be smaller than the difference of the lengths.
    if (Math.abs(other.length - first.length) >= least) continue;
    const found = distance(first, other);
    if (found >= least) continue;
    least = found;
    nearest = index;
  }
  return nearest;
}

/** Ignores indentation and trailing space, the most common differences. */
function comparable(line: string): string {
  return line.trim().slice(0, COMPARED_CHARS);
}

function diffOf(before: string, after: string, path: string): string | undefined {
  const patch = createTwoFilesPatch(path, path, before, after, "", "", { context: 3, timeout: DIFF_MS });
  const diff = patch?.slice(patch.indexOf("--- "));
  if (diff === undefined || diff.length <= DIFF_CHARS) return diff;
  const shown = diff.slice(0, diff.lastIndexOf("\n", DIFF_CHARS - CUT.length) + 1);
  return shown + CUT;
}

/** Patch programs treat a line that begins with a backslash as a comment. */
const CUT = "\\ The diff continues: it is too long to be shown whole.\n";
