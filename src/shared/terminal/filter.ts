/** Which sandbox output may reach a user's terminal, in the panel and on the command line. */

/** The end of a string sequence (OSC, DCS, SOS, PM, APC): BEL, ST in either form, or a cancelling character. */
// oxlint-disable-next-line no-control-regex
const STRING_END = /\x07|\x1b\\|\x9c|[\x18\x1a]/;

/** An escape, ENQ (which makes a terminal reply) or an 8-bit control character. */
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\x05\x1b\x80-\x9f]/;

// oxlint-disable-next-line no-control-regex
const STRING_START = /^(?:\x1b[\]PX^_k]|[\x90\x98\x9d-\x9f])/;

/** A control sequence (CSI), or a shorter escape sequence. */
// oxlint-disable-next-line no-control-regex
const SEQUENCE = /^\x1b(?:\[[0-?]{0,256}[ -/]{0,4}[@-~]|[ -/]{1,4}[0-~]|[0-Z\\`-~])/;

// oxlint-disable-next-line no-control-regex
const UNFINISHED = /^\x1b(?:\[[0-?]{0,256}[ -/]{0,4}|[ -/]{1,4})?$/;

/**
 * Sequences that pass, with their numbers limited (except in colors): movements, erasing, colors, the scroll region, the cursor's
 * shape, a soft reset, line drawing, the keypad mode. A terminal replies to a query as if the user typed the reply. So only the
 * query for the cursor's position passes, because line editors need it.
 */
const PASSED =
  // oxlint-disable-next-line no-control-regex
  /^\x1b(?:\[(?:[\d;:]*[@-MPSTXZ`abdefmrsu]|\?[\d;]*[JK]|6n|\d* q|!p)|[()][0AB]|[78=>DEM])$/;

/**
 * Modes that pass, with their defaults. Other modes do not pass, such as modes that report keys in another format. Programs work
 * without them.
 */
const MODES: Readonly<Record<string, "h" | "l">> = {
  "4": "l", // insert
  "?1": "l", // application cursor keys
  "?5": "l", // reverse video
  "?6": "l", // the origin is the top of the scroll region
  "?7": "h", // wrap at the right margin
  "?25": "h", // the cursor is visible
  "?1000": "l", // the mouse: clicks
  "?1002": "l", // the mouse: drags
  "?1003": "l", // the mouse: movements
  "?1006": "l", // the mouse: coordinates in decimal
  "?2004": "l", // bracketed paste
  "?2026": "l", // synchronised updates
  // The alternate screen. Last, because leaving it restores the cursor's position.
  "?47": "l",
  "?1047": "l",
  "?1049": "l",
};

const PLAIN = "\u001b[0m\u001b(B\u001b)B\u000f";

/**
 * Filters sandbox output for a user's terminal. It passes text, colors, cursor movements, and modes that can be restored. Other
 * sequences could write to the clipboard, set the title, or make the terminal send input to the program. The filter
 * decides about a sequence only when it is complete, so that two pieces cannot form a new one.
 */
export class TerminalFilter {
  #isInString = false;
  #unfinished = "";
  readonly #changed = new Set<string>();
  #hasScrollRegion = false;
  #hasKeypad = false;
  #hasCursorShape = false;
  readonly #most: () => number;

  /** @param most the largest number in a sequence: with a larger one, some terminals repeat an action for hours */
  constructor(most: () => number = () => 9999) {
    this.#most = most;
  }

  take(text: string): string {
    let rest = this.#unfinished + text;
    this.#unfinished = "";
    let shown = "";
    while (rest !== "") {
      if (this.#isInString) {
        const end = STRING_END.exec(rest);
        if (!end) {
          if (rest.endsWith("\u001b")) this.#unfinished = "\u001b";
          return shown;
        }
        this.#isInString = false;
        rest = rest.slice(end.index + end[0].length);
        continue;
      }
      const at = rest.search(CONTROL);
      if (at < 0) return shown + rest;
      shown += rest.slice(0, at);
      rest = rest.slice(at);
      if (UNFINISHED.test(rest)) {
        this.#unfinished = rest;
        return shown;
      }
      const string = STRING_START.exec(rest);
      this.#isInString = string !== null;
      const [sequence] = string ?? SEQUENCE.exec(rest) ?? [rest.slice(0, 1)];
      if (!string) shown += this.#filterSequence(sequence);
      rest = rest.slice(sequence.length);
    }
    return shown;
  }

  /** Restores the terminal. Only changed modes are reset, because resetting some of them moves the cursor. */
  resetSequences(): string {
    let text = PLAIN;
    if (this.#hasKeypad) text += "\u001b>";
    if (this.#hasCursorShape) text += "\u001b[0 q";
    const hasMoved = this.#hasScrollRegion || this.#changed.has("?6");
    for (const [mode, usual] of Object.entries(MODES)) {
      // Resetting the origin mode or the scroll region moves the cursor to the top. The last row is better for the next prompt.
      // Leaving the alternate screen restores the position.
      if (mode === "?47" && hasMoved) text += "\u001b[r\u001b[999;1H";
      if (this.#changed.has(mode)) text += `\u001b[${mode}${usual}`;
    }
    return text;
  }

  #filterSequence(sequence: string): string {
    // oxlint-disable-next-line no-control-regex
    const [, prefix = "", numbers, final] = /^\x1b\[(\??)([\d;]+)([hl])$/.exec(sequence) ?? [];
    if (numbers !== undefined) {
      const known = numbers.split(";").filter((number) => Object.hasOwn(MODES, prefix + number));
      for (const number of known) {
        if (MODES[prefix + number] === final) this.#changed.delete(prefix + number);
        else this.#changed.add(prefix + number);
      }
      return known.length === 0 ? "" : `\u001b[${prefix}${known.join(";")}${final}`;
    }
    if (!PASSED.test(sequence)) return "";
    if (sequence.endsWith("r")) this.#hasScrollRegion = sequence !== "\u001b[r";
    else if (sequence.endsWith(" q")) this.#hasCursorShape = true;
    else if (sequence === "\u001b=") this.#hasKeypad = true;
    return sequence.endsWith("m") ? sequence : this.#boundNumbers(sequence);
  }

  #boundNumbers(sequence: string): string {
    return sequence.replace(/\d{2,}/g, (number) => String(Math.min(Number(number), this.#most())));
  }
}
