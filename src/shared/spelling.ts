/** How ASCII characters are written in URLs, JSON and HTML. */

/** The longest spelling of one character that is read, as in `&equals;` and `&#x0027;`. Bytes. */
export const LONGEST_SPELLING = 8;

const PERCENT = 0x25;
const AMPERSAND = 0x26;
const SEMICOLON = 0x3b;
const BACKSLASH = 0x5c;
const LOWER_U = 0x75;
const LOWER_X = 0x78;

/** What stands for a character in JSON and JavaScript after a backslash. */
const ESCAPED = new Map(
  ["b\b", "f\f", "n\n", "r\r", "t\t"].map((pair) => [pair.charCodeAt(0), pair.charCodeAt(1)]),
);

/** The value of a hexadecimal digit. */
const DIGITS = Int8Array.from({ length: 256 }, (_, byte) => {
  const digit = parseInt(String.fromCharCode(byte), 16);
  return Number.isNaN(digit) ? -1 : digit;
});

/** Characters that have a name in HTML of at most six letters, by their names. */
const NAMED: Record<string, string> = {
  Hat: "^",
  QUOT: '"',
  AMP: "&",
  LT: "<",
  GT: ">",
  amp: "&",
  apos: "'",
  ast: "*",
  bsol: "\\",
  colon: ":",
  comma: ",",
  commat: "@",
  dollar: "$",
  equals: "=",
  excl: "!",
  grave: "`",
  gt: ">",
  lbrace: "{",
  lbrack: "[",
  lcub: "{",
  lowbar: "_",
  lpar: "(",
  lsqb: "[",
  lt: "<",
  midast: "*",
  num: "#",
  percnt: "%",
  period: ".",
  plus: "+",
  quest: "?",
  quot: '"',
  rbrace: "}",
  rbrack: "]",
  rcub: "}",
  rpar: ")",
  rsqb: "]",
  semi: ";",
  sol: "/",
  verbar: "|",
  vert: "|",
};

/** Whether each byte is a letter or digit, which a backslash gives another meaning. */
const ALPHANUMERIC = Array.from({ length: 256 }, (_, byte) => /[a-zA-Z0-9]/.test(String.fromCharCode(byte)));

/** Whether an escape may begin with a byte. */
export function isEscape(byte: number): boolean {
  return byte === PERCENT || byte === AMPERSAND || byte === BACKSLASH;
}

/** The ASCII character that the bytes from `start` to `end` spell as one escape; -1 where they are none. */
export function escapedAt(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  if (length < 2 || length > LONGEST_SPELLING) return -1;
  switch (bytes[start]) {
    case PERCENT:
      return length === 3 ? hexadecimal(bytes, start + 1, end) : -1;
    case BACKSLASH:
      return backslashed(bytes, start + 1, end);
    case AMPERSAND:
      return bytes[end - 1] === SEMICOLON && length > 3 ? entity(bytes, start + 1, end - 1) : -1;
    default:
      return -1;
  }
}

/** What the bytes after a backslash stand for: `/`, `x2f` or `u002f`. */
function backslashed(bytes: Uint8Array, start: number, end: number): number {
  const first = bytes[start] ?? 0;
  const length = end - start;
  if (length === 1) return ESCAPED.get(first) ?? (ALPHANUMERIC[first] ? -1 : ascii(first));
  const isCode = (length === 3 && first === LOWER_X) || (length === 5 && first === LOWER_U);
  return isCode ? hexadecimal(bytes, start + 1, end) : -1;
}

/** What stands between `&` and `;`. */
function entity(bytes: Uint8Array, start: number, end: number): number {
  const name = String.fromCharCode(...bytes.subarray(start, end));
  const [, hex, decimal] = /^#(?:[xX]([0-9a-fA-F]+)|([0-9]+))$/.exec(name) ?? [];
  if (hex !== undefined) return ascii(parseInt(hex, 16));
  return ascii(decimal === undefined ? (NAMED[name]?.charCodeAt(0) ?? -1) : Number(decimal));
}

function hexadecimal(bytes: Uint8Array, start: number, end: number): number {
  let number = 0;
  for (let at = start; at < end; at++) {
    const digit = DIGITS[bytes[at] ?? 0] ?? -1;
    if (digit < 0) return -1;
    number = number * 16 + digit;
  }
  return ascii(number);
}

function ascii(number: number): number {
  return number < 0x80 ? number : -1;
}
