/** Limits for JSON from sandboxes and clients: 8 MiB of JSON can have millions of values, so a size limit is not enough. */

/** For data from a sandbox. Such data is large only if it has a large string. */
export const SANDBOX_VALUES = 20_000;

/** For responses of our own protocol. A listing of 5,000 files has 25,000 values. */
export const RESPONSE_VALUES = 50_000;

/**
 * @param maxValues the most values
 * @returns undefined for invalid JSON and for JSON with more values. The JSON value `null` is returned as null
 */
export function parseBounded(text: string, maxValues: number): unknown {
  return hasMoreValues(text, maxValues) ? undefined : parseJSON(text);
}

/** @returns undefined for invalid JSON. The JSON value `null` is returned as null */
export function parseJSON(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const [QUOTE, COMMA, BACKSLASH] = [0x22, 0x2c, 0x5c];
const [OPEN_LIST, OPEN_OBJECT] = [0x5b, 0x7b];

/** Whether a JSON text has more values than this. It compares character codes, because a regular expression takes longer than the parser. */
export function hasMoreValues(text: string, most: number): boolean {
  let values = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      at = endOfString(text, at + 1);
      // The string does not end, so the parser will refuse the text.
      if (at < 0) return false;
    } else if (code === COMMA || code === OPEN_LIST || code === OPEN_OBJECT) {
      // Counts the value that may follow.
      values += 1;
      if (values > most) return true;
    }
  }
  return false;
}

/** The end of a string that began before `from`: the first quote after an even number of backslashes; -1 if there is none. */
function endOfString(text: string, from: number): number {
  for (let at = from; ;) {
    const end = text.indexOf('"', at);
    let before = end;
    while (before > at && text.charCodeAt(before - 1) === BACKSLASH) before -= 1;
    if (end < 0 || (end - before) % 2 === 0) return end;
    at = end + 1;
  }
}
