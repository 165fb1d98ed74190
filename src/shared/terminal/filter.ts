/** What of a sandbox's output a terminal of a user's may be given, in the panel and on the command line. */

/** What ends a string sequence (OSC, DCS, SOS, PM, APC): BEL, ST in either form, or what cancels it. */
// oxlint-disable-next-line no-control-regex
const STRING_END = /\x07|\x1b\\|\x9c|[\x18\x1a]/;

/** What is looked at more closely: an escape, ENQ (which asks for an answer) and control characters of eight bits. */
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\x05\x1b\x80-\x9f]/;

// oxlint-disable-next-line no-control-regex
const STRING_START = /^(?:\x1b[\]PX^_k]|[\x90\x98\x9d-\x9f])/;

/** A control sequence, or another escape sequence, which is short. */
// oxlint-disable-next-line no-control-regex
const SEQUENCE = /^\x1b(?:\[[0-?]{0,256}[ -/]{0,4}[@-~]|[ -/]{1,4}[0-~]|[0-Z\\`-~])/;

/** One whose rest has not come yet. */
// oxlint-disable-next-line no-control-regex
const UNFINISHED = /^\x1b(?:\[[0-?]{0,256}[ -/]{0,4}|[ -/]{1,4})?$/;

/**
 * The sequences let through whole: movements, erasing, colours, the scroll region, the shape of the cursor, a soft reset, line drawing,
 * the mode of the keypad. Of the questions that a terminal answers by typing only that for the cursor's position: line editors need it.
 */
const PASSED =
  // oxlint-disable-next-line no-control-regex
  /^\x1b(?:\[(?:[\d;:]*[@-MPSTXZ`abdefmrsu]|\?[\d;]*[JK]|6n|\d* q|!p)|[()][0AB]|[78=>DEM])$/;

/** Modes let through, and what each usually is. Not those that change what keys are reported as: programs do without. */
const MODES: Readonly<Record<string, "h" | "l">> = {
  "4": "l", // insert
  "?1": "l", // cursor keys of applications
  "?5": "l", // reverse video
  "?6": "l", // origin in the scroll region
  "?7": "h", // wrap at the right margin
  "?25": "h", // the cursor is visible
  "?1000": "l", // the mouse: clicks
  "?1002": "l", // drags
  "?1003": "l", // movements
  "?1006": "l", // its coordinates in decimal
  "?2004": "l", // bracketed paste
  "?2026": "l", // synchronised updates
  // The other screen. Last: going back puts the cursor where it was before.
  "?47": "l",
  "?1047": "l",
  "?1049": "l",
};

/** No colours, and the usual characters. */
const PLAIN = "\u001b[0m\u001b(B\u001b)B\u000f";

/**
 * What of a sandbox's output a user's terminal gets: text, colours, movements of the cursor, and modes that can be put back. Nothing
 * else: it could write into the clipboard, set the title, or have the terminal type something. A sequence comes through whole or not
 * at all, so that no two pieces make another one.
 */
export class TerminalFilter {
  #isInString = false;
  /** An escape sequence whose rest has not come yet. */
  #held = "";
  /** Modes that are not as usual. */
  readonly #changed = new Set<string>();
  #hasScrollRegion = false;
  #hasKeypad = false;
  #hasCursorShape = false;
  readonly #most: () => number;

  /**
   * @param most the largest number that a sequence keeps: more rows or columns than a terminal has do no more. Some terminals do what a
   *   sequence says as often as it says, which may be for hours
   */
  constructor(most: () => number = () => 9999) {
    this.#most = most;
  }

  take(text: string): string {
    let rest = this.#held + text;
    this.#held = "";
    let shown = "";
    while (rest !== "") {
      if (this.#isInString) {
        const end = STRING_END.exec(rest);
        if (!end) {
          if (rest.endsWith("\u001b")) this.#held = "\u001b";
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
        this.#held = rest;
        return shown;
      }
      const string = STRING_START.exec(rest);
      this.#isInString = string !== null;
      const [sequence] = string ?? SEQUENCE.exec(rest) ?? [rest.slice(0, 1)];
      if (!string) shown += this.#passed(sequence);
      rest = rest.slice(sequence.length);
    }
    return shown;
  }

  /** What gives the terminal back. Only what was changed is put back: some of it moves the cursor. */
  restored(): string {
    let text = PLAIN;
    if (this.#hasKeypad) text += "\u001b>";
    if (this.#hasCursorShape) text += "\u001b[0 q";
    const hasMoved = this.#hasScrollRegion || this.#changed.has("?6");
    for (const [mode, usual] of Object.entries(MODES)) {
      // Both move the cursor to the top: below the text is better, and the other screen's end knows where it was.
      if (mode === "?47" && hasMoved) text += "\u001b[r\u001b[999;1H";
      if (this.#changed.has(mode)) text += `\u001b[${mode}${usual}`;
    }
    return text;
  }

  #passed(sequence: string): string {
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
    return sequence.endsWith("m") ? sequence : this.#bounded(sequence);
  }

  #bounded(sequence: string): string {
    return sequence.replace(/\d{2,}/g, (number) => String(Math.min(Number(number), this.#most())));
  }
}
