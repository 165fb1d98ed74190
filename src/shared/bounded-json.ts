/** Bounds for JSON of others. The cost of parsing grows with the number of values, of which 8 MiB can hold millions. */

/** How many values a JSON text may hold, and how deep they may nest. */
export interface JSONBounds {
  values: number;
  depth: number;
}

/** For what a sandbox sends, in which anything large is one string. Parsing so much takes at most 20 ms of the Worker's thread. */
export const SANDBOX_JSON: JSONBounds = { values: 20_000, depth: 100 };

/** @returns undefined for invalid JSON and JSON over the bounds; null is a value */
export function parseBounded(text: string, bounds: JSONBounds): unknown {
  if (holdsTooMuch(text, bounds)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Whether a JSON text is over the bounds, determined without parsing it. */
export function holdsTooMuch(text: string, bounds: JSONBounds): boolean {
  // A value follows each of these characters, except within strings, which are skipped.
  const marks = /["[\]{},]/g;
  let values = 0;
  let depth = 0;
  for (let mark = marks.exec(text); mark; mark = marks.exec(text)) {
    const [sign] = mark;
    if (sign === '"') {
      const end = endOfString(text, marks.lastIndex);
      if (end < 0) return false;
      marks.lastIndex = end + 1;
    } else if (sign === "]" || sign === "}") depth -= 1;
    else {
      values += 1;
      if (sign !== ",") depth += 1;
      if (values > bounds.values || depth > bounds.depth) return true;
    }
  }
  return false;
}

/** The end of the string that began before `from`: the first quote after an even number of backslashes. */
function endOfString(text: string, from: number): number {
  for (let end = text.indexOf('"', from); end >= 0; end = text.indexOf('"', end + 1)) {
    let before = end;
    while (before > from && text[before - 1] === "\\") before -= 1;
    if ((end - before) % 2 === 0) return end;
  }
  return -1;
}
