/** Replaces exact texts, all or none, and returns the change as a unified diff. */
import { formatPatch, structuredPatch } from "diff";
import { distance } from "fastest-levenshtein";
import { FileError } from "./file-error.ts";
import { yieldBetweenSteps } from "./small-steps.ts";
import { TextSearch } from "./text-search.ts";
import { DIFF_CHARS, type Edit, EDITED_BYTES, MAX_PLACES, NEAREST_CHARS } from "./shapes.ts";

/**
 * Computing a diff blocks everything else, so after this many milliseconds the result has no diff. It has none either if the changed
 * part is longer, because a diff of millions of short lines takes gigabytes.
 */
const DIFF_MS = 1000;
const MAX_CHANGED_CHARS = 1024 * 1024;
const CONTEXT_LINES = 3;
/** Limits of the search for the line most similar to a missing text: milliseconds, and compared characters per line. */
const NEAREST_MS = 200;
const COMPARED_CHARS = 500;

/**
 * @throws FileError `not_text`; `too_large` for the resulting size; `line_breaks`; `absent` with the nearest line; `repeated` with
 * the numbers of the lines that have the text
 */
export async function applyEdits(content: Buffer, edits: readonly Edit[], path: string) {
  const before = textOf(content);
  const turn = yieldBetweenSteps();
  let text = before;
  const endsWithCRLF = before[before.indexOf("\n") - 1] === "\r";
  let replaced = 0;
  for (const [index, edit] of edits.entries()) {
    await turn();
    const { old_text: wanted, new_text: replacement, all } = endsWithCRLF ? withCRLF(text, edit) : edit;
    const parts = new TextSearch(wanted).split(text);
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
  await turn();
  return { bytes, replaced, diff: diffOf(before, text, path) };
}

/** Clients write only line feeds in their edits. Carriage returns in `old_text` show that the caller means exact texts. */
function withCRLF(text: string, edit: Edit): Edit {
  if (edit.old_text.includes("\r")) return edit;
  const old_text = edit.old_text.replaceAll("\n", "\r\n");
  // Some lines of the file may end otherwise than its first line.
  if (new TextSearch(old_text).indexIn(text, 0) < 0) return edit;
  return { ...edit, old_text, new_text: edit.new_text.replaceAll(/\r?\n/g, "\r\n") };
}

function textOf(content: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
  } catch {
    throw new FileError({ problem: "not_text" });
  }
}

function placesOf(text: string, wanted: string): number[] {
  const search = new TextSearch(wanted);
  const places: number[] = [];
  let at = search.indexIn(text, 0);
  while (at >= 0 && places.length < MAX_PLACES) {
    places.push(at);
    at = search.indexIn(text, at + wanted.length);
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
  if (other === wanted || new TextSearch(other).indexIn(text, 0) < 0) return undefined;
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
  const { start, end } = changedPart(before, after);
  const [old, changed] = [before.slice(start, before.length - end), after.slice(start, after.length - end)];
  if (old.length + changed.length > MAX_CHANGED_CHARS) return undefined;
  const options = { context: CONTEXT_LINES, timeout: DIFF_MS };
  const patch = structuredPatch(path, path, old, changed, "", "", options);
  if (patch === undefined) return undefined;
  const lines = lineOf(before, start) - 1;
  const hunks = patch.hunks.map((hunk) => ({
    ...hunk,
    oldStart: hunk.oldStart + lines,
    newStart: hunk.newStart + lines,
  }));
  const formatted = formatPatch({ ...patch, hunks });
  const diff = formatted.slice(formatted.indexOf("--- "));
  if (diff.length <= DIFF_CHARS) return diff;
  const shown = diff.slice(0, diff.lastIndexOf("\n", DIFF_CHARS - CUT.length) + 1);
  return shown + CUT;
}

/** How many characters before and after the changed lines, with the lines around them, are the same in both texts. */
function changedPart(before: string, after: string): { start: number; end: number } {
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before.charCodeAt(start) === after.charCodeAt(start)) start++;
  let end = 0;
  const isSame = () =>
    before.charCodeAt(before.length - 1 - end) === after.charCodeAt(after.length - 1 - end);
  while (end < most - start && isSame()) end++;
  for (let line = 0; line <= CONTEXT_LINES && start > 0; line++)
    start = start === 1 ? 0 : before.lastIndexOf("\n", start - 2) + 1;
  // The part ends with a complete line, or with the text.
  for (let line = 0; line <= CONTEXT_LINES && end > 0; line++) {
    const lineEnd = before.indexOf("\n", before.length - end);
    end = lineEnd < 0 ? 0 : before.length - lineEnd - 1;
  }
  return { start, end };
}

/** Patch programs treat a line that begins with a backslash as a comment. */
const CUT = "\\ The diff continues: it is too long to be shown whole.\n";
