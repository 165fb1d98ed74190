/** Reads streaming JSON and keeps only the path to the current value. */

/** A longer name is read as "", a longer value as undefined. The limit counts bytes as written in the JSON, with quotes. */
const MAX_TEXT_BYTES = 100;
/** Deeper nesting counts as malformed. No real request reaches this depth. */
const MAX_DEPTH = 200;
/** The member names that lead to a value; `[]` for list elements. The array is reused: copy it to keep it. */
export type Path = readonly string[];

interface JSONListener {
  open?(path: Path, isList: boolean): void;
  /**
   * Called at the end of a value that is neither a list nor an object.
   * @param read returns a string's value, or the text of another value; undefined if it is too long. Each byte counts as a
   * character, so only ASCII is exact
   */
  value(path: Path, read: () => string | undefined): void;
}

/** For each byte, whether it can be part of a number, `true`, `false` or `null`. */
const IS_LITERAL = Array.from({ length: 256 }, (_, byte) => /[\w.+-]/.test(String.fromCharCode(byte)));
const [SPACE, TAB, LINE_FEED, RETURN] = [0x20, 0x09, 0x0a, 0x0d];
const [QUOTE, BACKSLASH, COLON, COMMA] = [0x22, 0x5c, 0x3a, 0x2c];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

export class JSONReader {
  readonly #listener: JSONListener;
  readonly #read = (): string | undefined => this.#text();
  readonly #path: string[] = [];
  /** For each enclosing list or object: whether a name was read and its value follows. */
  readonly #enclosing: { isList: boolean; isNamed: boolean }[] = [];
  /** The first bytes of the name or value that is being read. */
  readonly #kept: number[] = Array.from({ length: MAX_TEXT_BYTES + 1 }, () => 0);
  #keptLength = 0;
  #isInString = false;
  #isEscaped = false;
  #isMalformed = false;

  constructor(listener: JSONListener) {
    this.#listener = listener;
  }

  /**
   * Whether the input has a wrong character, name or bracket, or too much nesting. If so, the rest is not read. This is not a
   * complete check: invalid UTF-8, `[1,,2]` and a missing end, for example, are not noticed.
   */
  get isMalformed(): boolean {
    return this.#isMalformed;
  }

  /** Whether the input so far is whole values. */
  get isBetweenValues(): boolean {
    return !this.#isMalformed && this.#enclosing.length === 0 && this.#keptLength === 0;
  }

  add(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length && !this.#isMalformed) {
      const end = this.#isInString ? this.#endOfText(bytes, at) : endOfLiteral(bytes, at);
      if (end > at) this.#keep(bytes, at, end);
      else this.#take(bytes[at]!);
      at = Math.max(end, at + 1);
    }
  }

  /** Where the part of a string that starts at `from` ends: after its closing quote, if it is among the bytes. */
  #endOfText(bytes: Uint8Array, from: number): number {
    let isEscaped = this.#isEscaped;
    for (let at = from; at < bytes.length; at++) {
      const byte = bytes[at]!;
      if (byte < 0x20) this.#isMalformed = true;
      else if (isEscaped) isEscaped = false;
      else if (byte === BACKSLASH) isEscaped = true;
      else if (byte === QUOTE) {
        this.#isInString = false;
        this.#isEscaped = false;
        return at + 1;
      }
    }
    this.#isEscaped = isEscaped;
    return bytes.length;
  }

  #take(byte: number): void {
    const enclosing = this.#enclosing.at(-1);
    switch (byte) {
      case QUOTE:
        this.#isInString = true;
        this.#keepByte(byte);
        break;
      case COLON:
        if (
          enclosing === undefined ||
          enclosing.isList ||
          enclosing.isNamed ||
          this.#keptLength === 0 ||
          this.#kept[0] !== QUOTE
        )
          this.#isMalformed = true;
        else {
          enclosing.isNamed = true;
          this.#path[this.#path.length - 1] = this.#text() ?? "";
        }
        break;
      case COMMA:
        this.#end();
        if (enclosing) enclosing.isNamed = false;
        break;
      case OPEN_LIST:
      case OPEN_OBJECT:
        this.#open(byte === OPEN_LIST);
        break;
      case CLOSE_LIST:
      case CLOSE_OBJECT:
        if (enclosing?.isList !== (byte === CLOSE_LIST)) this.#isMalformed = true;
        this.#end();
        this.#enclosing.pop();
        this.#path.pop();
        break;
      default:
        if (byte !== SPACE && byte !== LINE_FEED && byte !== RETURN && byte !== TAB) this.#isMalformed = true;
    }
  }

  #open(isList: boolean): void {
    const enclosing = this.#enclosing.at(-1);
    if (enclosing?.isList === false && !enclosing.isNamed) this.#isMalformed = true;
    if (this.#enclosing.length === MAX_DEPTH) this.#isMalformed = true;
    if (this.#isMalformed) return;
    this.#listener.open?.(this.#path, isList);
    this.#enclosing.push({ isList, isNamed: false });
    this.#path.push(isList ? "[]" : "");
  }

  #end(): void {
    const enclosing = this.#enclosing.at(-1);
    if (this.#keptLength === 0) return;
    if (enclosing?.isList === false && !enclosing.isNamed) this.#isMalformed = true;
    else this.#listener.value(this.#path, this.#read);
    this.#keptLength = 0;
  }

  #keep(bytes: Uint8Array, from: number, to: number): void {
    const end = Math.min(to, from + this.#kept.length - this.#keptLength);
    for (let at = from; at < end; at++) this.#keepByte(bytes[at]!);
  }

  #keepByte(byte: number): void {
    if (this.#keptLength < this.#kept.length) this.#kept[this.#keptLength++] = byte;
  }

  /** The text of the name or value that has been read. */
  #text(): string | undefined {
    const length = this.#keptLength;
    this.#keptLength = 0;
    if (length > MAX_TEXT_BYTES) return undefined;
    const text = String.fromCharCode(...this.#kept.slice(0, length));
    if (!text.startsWith('"')) return text;
    if (!text.includes("\\")) return text.slice(1, -1);
    try {
      return String(JSON.parse(text));
    } catch {
      this.#isMalformed = true;
      return undefined;
    }
  }
}

function endOfLiteral(bytes: Uint8Array, from: number): number {
  let at = from;
  while (at < bytes.length && IS_LITERAL[bytes[at]!]) at++;
  return at;
}
