/** What a terminal's output says as text. The log keeps it as it came, with its control sequences. */

/** Columns that a line may have: a sequence can name any. */
const MAX_COLUMN = 1000;

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
  const lines: string[] = [];
  let line: string[] = [];
  let column = 0;
  const breakLine = () => {
    lines.push(line.join("").trimEnd());
    line = [];
    column = 0;
  };
  const moveTo = (to: number) => (column = Math.max(0, Math.min(to, MAX_COLUMN)));
  for (const [token, parameters, final] of output.matchAll(TOKEN)) {
    const count = Number.parseInt(parameters ?? "", 10) || 0;
    if (final === undefined) {
      if (token === "\n") breakLine();
      else if (token === "\r") column = 0;
      else if (token === "\b") moveTo(column - 1);
      else if (token === "\t" || token >= " ")
        for (const character of token) {
          while (line.length < column) line.push(" ");
          line[column++] = character;
        }
    } else if (final === "K") line = count === 0 ? line.slice(0, column) : [];
    else if (final === "C") moveTo(column + (count || 1));
    else if (final === "D") moveTo(column - (count || 1));
    else if (final === "G") moveTo(count - 1);
    else if (final === "P") line.splice(column, count || 1);
    else if (final === "@")
      line.splice(column, 0, ...Array<string>(Math.min(count || 1, MAX_COLUMN)).fill(" "));
    else if ("ABEFHJdf".includes(final) && line.length > 0) breakLine();
  }
  return [...lines, line.join("")].join("\n");
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
  if (!/[\r\n]$/.test(typed) || output.length > 4 * typed.length + MAX_COLUMN) return false;
  const shown = letters(terminalText(new TextDecoder().decode(output)));
  return letters(terminalText(typed)).startsWith(shown);
}

function letters(text: string): string {
  return text.replace(/\s+/g, "");
}
