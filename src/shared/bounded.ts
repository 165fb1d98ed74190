/** Limits for JSON from sandboxes and clients: 8 MiB of JSON can have millions of values, so a size limit is not enough. */

/** The most values, the deepest nesting, and the longest member name in characters. */
interface JSONBounds {
  values: number;
  depth: number;
  name: number;
}

/**
 * For data from a sandbox. Such data is large only if it has a large string. Within these limits, parsing takes at most 20 ms.
 */
export const SANDBOX_JSON: JSONBounds = { values: 20_000, depth: 100, name: 1000 };

/** For responses of our own protocol, where all names are known. A listing of 5,000 files has 25,000 values. */
export const RESPONSE_JSON: JSONBounds = { values: 50_000, depth: 10, name: 100 };

/** For an event of a run. The longest event names 20 ports. */
export const EVENT_JSON: JSONBounds = { values: 50, depth: 5, name: 100 };

/** @returns undefined for invalid JSON and for JSON over the bounds. The JSON value `null` is returned as null */
export function parseBounded(text: string, bounds: JSONBounds): unknown {
  return exceedsBounds(text, bounds) ? undefined : parseJSON(text);
}

/** @returns undefined for invalid JSON. The JSON value `null` is returned as null */
export function parseJSON(text: string): unknown {
  try {
    return parseSafely(text);
  } catch {
    return undefined;
  }
}

/**
 * The starts of strings of 8 to 10 digits. V8 enters strings of up to ten characters in a table when it parses JSON. The place of a
 * number in this table is its last bits. So somebody can choose numbers that have the same place: 16,000 of them took 2.6 to 4.2 s, and
 * they stay in the table until V8 collects garbage. Node prevents this, and workerd does not. Names and escaped digits take no longer.
 * The keys of a `Set` or `Map` collide in the same way, so never put thousands of strings of somebody else into one.
 */
const DIGITS = /(?<!\\)"(?=\d{8,10}"(?!\s*:))/g;

/** A start that makes a string too long for the table. Nobody outside can guess it. */
let mark: string | undefined;

/** As `JSON.parse`, but enters no numbers in V8's table of strings. */
export function parseSafely(text: string): unknown {
  if (text.search(DIGITS) < 0) return JSON.parse(text);
  const start = (mark ??= crypto.randomUUID());
  return removeMarks(JSON.parse(text.replaceAll(DIGITS, `"${start}`)), start);
}

/**
 * Changes the lists and objects in `value`. With a function for each value, `JSON.parse` took 70 ms for 50,000 values. This takes some
 * milliseconds.
 */
function removeMarks(value: unknown, start: string): unknown {
  if (typeof value === "string") return value.startsWith(start) ? value.slice(start.length) : value;
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at++) value[at] = removeMarks(value[at], start);
  } else if (typeof value === "object" && value !== null) {
    const members = value as Record<string, unknown>;
    for (const name of Object.keys(members)) {
      const member = members[name];
      if (typeof member === "string" || typeof member === "object")
        members[name] = removeMarks(member, start);
    }
  }
  return value;
}

/** How many strings of a JSON text V8 would enter in its table at a place that its sender can choose. */
export const countDigits = (text: string): number => text.match(DIGITS)?.length ?? 0;

const [QUOTE, COMMA, BACKSLASH] = [0x22, 0x2c, 0x5c];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

export function exceedsBounds(text: string, bounds: JSONBounds): boolean {
  let values = 0;
  let depth = 0;
  // Compares character codes, because a regular expression takes longer than the parser itself.
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      const end = endOfString(text, at + 1);
      // The string does not end, so the parser will refuse the text.
      if (end < 0) return false;
      if (end - at > bounds.name && isName(text, end)) return true;
      at = end;
    } else if (code === CLOSE_LIST || code === CLOSE_OBJECT) depth -= 1;
    else if (code === COMMA || code === OPEN_LIST || code === OPEN_OBJECT) {
      // Counts the value that may follow.
      values += 1;
      if (code !== COMMA) depth += 1;
      if (values > bounds.values || depth > bounds.depth) return true;
    }
  }
  return false;
}

function isName(text: string, end: number): boolean {
  const after = /[^ \t\r\n]/g;
  after.lastIndex = end + 1;
  return after.exec(text)?.[0] === ":";
}

/** The end of a string that began before `from`: the first quote after an even number of backslashes. */
function endOfString(text: string, from: number): number {
  for (let at = from; ;) {
    const end = text.indexOf('"', at);
    let before = end;
    while (before > at && text.charCodeAt(before - 1) === BACKSLASH) before -= 1;
    if (end < 0 || (end - before) % 2 === 0) return end;
    at = end + 1;
    // Where many quotes are escaped, reading each character takes a fifth of the time of `indexOf`.
    for (const near = at + 16; at < near; at++) {
      const code = text.charCodeAt(at);
      if (code === QUOTE) return at;
      if (code === BACKSLASH) at++;
    }
  }
}
