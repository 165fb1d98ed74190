/** A terminal's output as text. The log stores the raw output with its control sequences. */

import { decodeText } from "../shared/text.ts";

/** The widest row; our terminals are not wider. A longer line takes several rows. */
const MAX_COLUMNS = 1000;

export const spareBlanks = () => ({ blanks: MAX_COLUMNS });

/** The cursor can return to this many of the last rows. Nested progress bars and menus need fewer. */
const MAX_ROWS = 50;

/**
 * The text that a Python kernel prints for `clear_output()`: the same as CLEARED in streams.py. Other programs send these
 * sequences in another order.
 */
const CLEARED = "\x1b[3J\x1b[2J\x1b[H";

/** A control sequence (CSI) with parameters and final character; an escape sequence to ignore; or text with control characters. */
const TOKEN =
  // oxlint-disable-next-line no-control-regex
  /\x1b\[([0-?]*)[ -/]*([@-~])|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]?|[^\x1b]+/g;

/**
 * The text that a terminal would show: without control sequences and overwritten text. Text that a full-screen program draws at
 * another place becomes a separate line. The text is at most twice as long as the output, plus the spare blanks: further padding is
 * dropped.
 * @param spare blanks that several texts share
 */
export function terminalText(output: string, spare = spareBlanks()): string {
  let text = "";
  let row: string[] = [];
  /** The rows that can still change, from the top, and the cursor's row. */
  let rows = [{ cells: row, end: "" }];
  let cursorRow = 0;
  let column = 0;
  /** How many blanks control sequences may still add. */
  let blanks = output.length + spare.blanks;
  const textOfRow = ({ cells, end }: { cells: string[]; end: string }) =>
    end === "" ? cells.join("") : cells.join("").trimEnd() + end;
  const goTo = (to: number) => {
    cursorRow = to;
    row = rows[cursorRow]!.cells;
  };
  const endRow = (end: string) => {
    if (cursorRow === rows.length - 1) {
      rows[cursorRow]!.end = end;
      rows.push({ cells: [], end: "" });
      if (rows.length > MAX_ROWS) text += textOfRow(rows.shift()!);
      cursorRow = rows.length - 2;
    }
    goTo(cursorRow + 1);
    column = 0;
  };
  const moveTo = (to: number) => (column = Math.max(0, Math.min(to, MAX_COLUMNS - 1)));
  const put = (character: string) => {
    if (column === MAX_COLUMNS) endRow("");
    const gap = Math.min(blanks, column - row.length);
    if (gap > 0) {
      blanks -= gap;
      row.push(...Array<string>(gap).fill(" "));
    }
    column = Math.min(column, row.length);
    row[column++] = character;
  };
  for (const [token, parameters, final] of output.matchAll(TOKEN)) {
    const count = Number.parseInt(parameters ?? "", 10) || 0;
    if (final === undefined) {
      if (token.startsWith("\x1b")) continue;
      for (const character of token)
        if (character === "\n") endRow("\n");
        else if (character === "\r") column = 0;
        else if (character === "\b") moveTo(column - 1);
        else if (character === "\t" || character >= " ") put(character);
    } else if (final === "K") row.length = count === 0 ? Math.min(row.length, column) : 0;
    else if (final === "C") moveTo(column + (count || 1));
    else if (final === "D") moveTo(column - (count || 1));
    else if (final === "G") moveTo(count - 1);
    else if (final === "P") row.splice(column, count || 1);
    else if (final === "@" && column < row.length) {
      const added = Math.min(count || 1, blanks, MAX_COLUMNS - column);
      blanks -= added;
      row.splice(column, 0, ...Array<string>(added).fill(" "));
      row.length = Math.min(row.length, MAX_COLUMNS);
    } else if ("AF".includes(final) && cursorRow > 0) {
      goTo(Math.max(0, cursorRow - (count || 1)));
      if (final === "F") column = 0;
    } else if ("BE".includes(final) && cursorRow < rows.length - 1) {
      goTo(Math.min(rows.length - 1, cursorRow + (count || 1)));
      if (final === "E") column = 0;
    } else if (final === "J" && count === 0 && cursorRow < rows.length - 1) {
      row.length = Math.min(row.length, column);
      rows = rows.slice(0, cursorRow + 1);
      rows[cursorRow]!.end = "";
    } else if ("ABEFHJdf".includes(final)) {
      goTo(rows.length - 1);
      if (row.length > 0) endRow("\n");
    }
  }
  spare.blanks = Math.min(spare.blanks, blanks);
  return text + rows.map(textOfRow).join("");
}

/** The text with overwritten lines in their last state, and without text that a kernel's code has cleared. */
export function lastStates(printed: string, spare = spareBlanks()): string {
  const text = textAfterClear(printed) ?? printed;
  // oxlint-disable-next-line no-control-regex
  if (/\x1b\[\d*[AF]/.test(text)) return terminalText(text, spare);
  return text.replace(/(?:(?<![^\n])[^\n]*\r[^\n][^\n]*\n?)+/g, (lines) => terminalText(lines, spare));
}

/** The text after the last clearing; undefined if nothing was cleared. */
export function textAfterClear(text: string): string | undefined {
  const at = text.lastIndexOf(CLEARED);
  return at < 0 ? undefined : text.slice(at + CLEARED.length);
}

/** The number of characters at the end that form an incomplete control sequence. */
export function unfinishedSequenceLength(output: string): number {
  // oxlint-disable-next-line no-control-regex
  return /\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]{0,200})?$/.exec(output)?.[0].length ?? 0;
}

/** Whether an output is only the terminal's echo of typed text, or a part of the echo. */
export function isEchoOf(typed: string, output: Uint8Array): boolean {
  // After text without a line end, a program waits for more text, so its only output is the echo. The echo then counts as output.
  // oxlint-disable-next-line no-control-regex
  if (!/[\r\n]$/.test(typed) || output.length > 4 * typed.length + MAX_COLUMNS) return false;
  const shown = letters(terminalText(decodeText(output, "none")));
  return letters(terminalText(typed)).startsWith(shown);
}

function letters(text: string): string {
  return text.replace(/\s+/g, "");
}
