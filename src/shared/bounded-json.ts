/** JSON that somebody else wrote: parsing and checking costs by the value and not by the byte, and 8 MiB hold millions. */

/** How many values a text may hold outside of its strings, and how deep they may lie in each other. */
export interface JSONBounds {
  values: number;
  depth: number;
}

/** What comes from inside a sandbox: anything large in it is one string. Parsing it takes the Worker's thread 20 ms at most. */
export const SANDBOX_JSON: JSONBounds = { values: 20_000, depth: 100 };

/** @returns undefined for what is no JSON or over the bounds; null is a value. */
export function parseBounded(text: string, bounds: JSONBounds): unknown {
  if (holdsTooMuch(text, bounds)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Whether a JSON text is over the bounds, looked for without parsing it. */
export function holdsTooMuch(text: string, bounds: JSONBounds): boolean {
  // A value stands behind each of these, strings aside; a quote opens a string, which is skipped to its end.
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

/** Where the string ends that began before `from`: at the first quote with an even number of backslashes before it. */
function endOfString(text: string, from: number): number {
  for (let end = text.indexOf('"', from); end >= 0; end = text.indexOf('"', end + 1)) {
    let before = end;
    while (before > from && text[before - 1] === "\\") before -= 1;
    if ((end - before) % 2 === 0) return end;
  }
  return -1;
}
