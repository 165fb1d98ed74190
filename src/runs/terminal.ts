/** What a terminal's output says as text. The log keeps it as it came, with its control sequences. */

/** Columns of a row: no terminal here has more. A longer line is shown whole, but only its last row can still be changed. */
const MAX_COLUMNS = 1000;

/**
 * A control sequence (CSI) with its parameters and its final character; another one, of which nothing shows; a control
 * character; or text.
 */
const TOKEN =
  // oxlint-disable-next-line no-control-regex
  /\x1b\[([0-?]*)[ -/]*([@-~])|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]?|[\x00-\x1f\x7f]|[^\x00-\x1f\x7f]+/g;

/**
 * The text that a terminal shows of an output: sequences are left out, what is overwritten in its line is gone, and what a
 * full-screen program puts elsewhere on the screen stands in a line of its own.
 */
export function terminalText(output: string): string {
  return rendered(output).text;
}

/**
 * The same, with its cost.
 * @returns `moved`: cells that were written, or moved by an insertion or a deletion. For each character of the output that is
 *   less than a row. The text is at most twice as long as the output, and a row: blanks for which there is no room are left out
 */
export function rendered(output: string): { text: string; moved: number } {
  let text = "";
  let row: string[] = [];
  let column = 0;
  let moved = 0;
  /** Blanks that sequences may still add to what was printed. */
  let blanks = output.length + MAX_COLUMNS;
  const endRow = (end: string) => {
    text += end === "" ? row.join("") : row.join("").trimEnd() + end;
    row = [];
    column = 0;
  };
  const moveTo = (to: number) => (column = Math.max(0, Math.min(to, MAX_COLUMNS - 1)));
  const put = (character: string) => {
    if (column === MAX_COLUMNS) endRow("");
    const gap = Math.min(blanks, column - row.length);
    if (gap > 0) {
      blanks -= gap;
      moved += gap;
      row.push(...Array<string>(gap).fill(" "));
    }
    column = Math.min(column, row.length);
    row[column++] = character;
    moved += 1;
  };
  for (const [token, parameters, final] of output.matchAll(TOKEN)) {
    const count = Number.parseInt(parameters ?? "", 10) || 0;
    if (final === undefined) {
      if (token === "\n") endRow("\n");
      else if (token === "\r") column = 0;
      else if (token === "\b") moveTo(column - 1);
      else if (token === "\t" || token >= " ") for (const character of token) put(character);
    } else if (final === "K") row.length = count === 0 ? Math.min(row.length, column) : 0;
    else if (final === "C") moveTo(column + (count || 1));
    else if (final === "D") moveTo(column - (count || 1));
    else if (final === "G") moveTo(count - 1);
    else if (final === "P" || final === "@") {
      moved += Math.max(0, row.length - column);
      if (final === "P") row.splice(column, count || 1);
      else if (column < row.length) {
        const added = Math.min(count || 1, blanks, MAX_COLUMNS - column);
        blanks -= added;
        moved += added;
        row.splice(column, 0, ...Array<string>(added).fill(" "));
        row.length = Math.min(row.length, MAX_COLUMNS);
      }
    } else if ("ABEFHJdf".includes(final) && row.length > 0) endRow("\n");
  }
  return { text: text + row.join(""), moved };
}

/** The text with each line that was written over, as progress bars do after a carriage return, in its last state. */
export function lastStates(text: string): string {
  if (!/\r[^\n]/.test(text)) return text;
  const lines = text.split("\n").map((line) => {
    const [shown, end] = line.endsWith("\r") ? [line.slice(0, -1), "\r"] : [line, ""];
    return shown.includes("\r") ? terminalText(shown) + end : line;
  });
  return lines.join("\n");
}

/** Characters at the end that begin a control sequence and do not finish it. */
export function unfinishedSequence(output: string): number {
  // oxlint-disable-next-line no-control-regex
  return /\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]{0,200})?$/.exec(output)?.[0].length ?? 0;
}

/** Whether an output is no more than what was typed, or a part of it, as the terminal shows it while a program works. */
export function isEchoOf(typed: string, output: Uint8Array): boolean {
  // What is typed without a line's end waits for more, and its echo is all there will be.
  // oxlint-disable-next-line no-control-regex
  if (!/[\r\n]$/.test(typed) || output.length > 4 * typed.length + MAX_COLUMNS) return false;
  const shown = letters(terminalText(new TextDecoder().decode(output)));
  return letters(terminalText(typed)).startsWith(shown);
}

function letters(text: string): string {
  return text.replace(/\s+/g, "");
}
