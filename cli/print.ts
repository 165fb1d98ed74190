/** Commands' output: colors, tables and progress on a terminal, plain lines in a pipe, or one JSON document. */
import { styleText } from "node:util";
import { stripEscapes } from "../src/shared/escape-sequences.ts";
import { HIDDEN, makeVisible, toVisibleJSON } from "../src/shared/shown.ts";
import { shortened } from "../src/shared/text.ts";
import { CommandError, EXIT, type ExitName, UserError } from "./exit.ts";
import { STACK_HINT } from "./texts.ts";

type Style = Parameters<typeof styleText>[0];

/** Colors on a terminal, unless NO_COLOR is set. */
export function applyStyle(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return styleText(style, text, { stream, validateStream: true });
}

/** The control characters that stay in a line: tabs between cells, and sequences of `applyStyle`. */
// oxlint-disable-next-line no-control-regex
const OWN = /(\t|\x1b\[(?:1|2|22|3[1-39])m)/;

/** A line with its line breaks and control sequences made visible, because servers may send such characters. */
export function escapeLine(text: string): string {
  return text
    .split(OWN)
    .map((part, index) => (index % 2 === 0 ? makeVisible(part) : part))
    .join("");
}

/** The terminal on which color sequences of a program's output may be in effect. They could hide the text after the output. */
let coloredStream: NodeJS.WriteStream | undefined;

/** Ends the colors of a program's output. */
export function resetColors(): void {
  coloredStream?.write("\u001b[0m");
  coloredStream = undefined;
}

export function line(...lines: readonly string[]): void {
  resetColors();
  for (const text of lines) process.stdout.write(`${escapeLine(text)}\n`);
}

export function note(...lines: readonly string[]): void {
  resetColors();
  for (const text of lines) process.stderr.write(`${applyStyle("dim", escapeLine(text), process.stderr)}\n`);
}

/** Prints the document of `--json`. Its first field is `success`, which overrides a field `success` of the data. */
export function json(success: boolean, data: object): void {
  const document = Object.assign({ success }, data, { success });
  line(...toVisibleJSON(document, process.stdout.isTTY ? 2 : undefined).split("\n"));
}

/** Prints an error. Its kind decides the exit status. */
export function failure(kind: ExitName, message: string, asJSON: boolean): void {
  resetColors();
  if (asJSON) json(false, { error: { kind, message, exit_status: EXIT[kind] } });
  else
    process.stderr.write(
      `${applyStyle("red", "Error:", process.stderr)} ${message.split("\n").map(escapeLine).join("\n")}\n`,
    );
}

/** @param unexpected the kind for errors that are not caused by the user or by a local file */
export function failureOf(
  error: unknown,
  unexpected: ExitName = "refusedByServer",
  showsStack = /^(1|true|yes)$/i.test(process.env.SANDBOX_MCP_VERBOSE ?? ""),
): [kind: ExitName, message: string] {
  if (error instanceof CommandError) return [error.kind, error.message];
  if (error instanceof UserError) return ["failed", error.message];
  if (!(error instanceof Error)) return [unexpected, String(error)];
  // This is an error about a local file; its message contains the path.
  if ("syscall" in error && "path" in error) return ["unavailable", error.message];
  const where = showsStack ? `\n${error.stack}` : ` ${STACK_HINT}`;
  return [unexpected, oneLine(error.message) + where];
}

/**
 * Prints a program's output. A pipe gets it unchanged. On a terminal only color sequences take effect, because others could
 * change earlier text.
 */
export function printOutput(stream: NodeJS.WriteStream, text: string): void {
  stream.write(stream.isTTY ? escapeControls(text) : text);
  if (stream.isTTY && text.includes("\u001b[")) coloredStream = stream;
}

/**
 * Color sequences, marks that change the writing direction, and control characters other than tab, line feed and carriage return.
 */
// oxlint-disable-next-line no-control-regex
const CONTROL = /\x1b\[[\d;:]*m|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\p{Bidi_Control}]/gu;

function escapeControls(text: string): string {
  return text.replace(CONTROL, (found) =>
    found.length > 1 ? found : `\\x${(found.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}`,
  );
}

/** A text on one line without control characters, cut to `width` characters. */
export function oneLine(text: string, width = Infinity): string {
  return cut(escapeControls(stripEscapes(text).replaceAll(/\s+/g, " ")).trim(), width);
}

function cut(text: string, width: number): string {
  return shortened(text, Math.max(1, width));
}

/** A name as one word, with `printf %b` escapes for all characters that a terminal does not show unchanged. */
function escapeName(name: string): string {
  return name.replaceAll("\\", "\\\\").replace(HIDDEN, (character) => {
    const short = { "\n": "\\n", "\t": "\\t", "\r": "\\r" }[character];
    return (
      short ?? [...Buffer.from(character)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")
    );
  });
}

export interface Column {
  title: string;
  /** Whether to align the column right, for numbers. */
  isRightAligned?: boolean;
  /** Whether the column has names that programs read. Names are printed in full, and `escapeName` escapes them. */
  isName?: boolean;
  /** Whether the column may be left out of a table that is too wide. The last such column is left out first. */
  isMinor?: boolean;
}

/** Prints rows: as a table on a terminal, cut to its width; with tabs and without a header in a pipe. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): void {
  const cells = rows.map((row) =>
    row.map((cell, index) => (columns[index]?.isName ? escapeName(cell) : oneLine(cell))),
  );
  if (!process.stdout.isTTY) {
    for (const row of cells) line(row.join("\t"));
    return;
  }
  for (const text of alignRows(columns, cells, process.stdout.columns || 80)) line(text);
}

/** The narrowest last column, in characters. */
const MIN_WIDTH = 20;

/** A table's lines, the header first, from cells without control characters. Only the last column is cut. */
export function alignRows(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  width: number,
): string[] {
  const widths = columns.map(({ title }, index) =>
    Math.max(title.length, ...rows.map((row) => row[index]?.length ?? 0)),
  );
  const before = widths.slice(0, -1).reduce((sum, part) => sum + part + 2, 0);
  const minor = columns.findLastIndex(({ isMinor }) => isMinor);
  if (before + MIN_WIDTH > width && minor >= 0) {
    const without = <T>(cells: readonly T[]) => cells.toSpliced(minor, 1);
    return alignRows(without(columns), rows.map(without), width);
  }
  const formatRow = (row: readonly string[]) =>
    row
      .map((cell, index) => {
        if (index === columns.length - 1) return cut(cell, Math.max(MIN_WIDTH, width - before));
        const size = widths[index] ?? 0;
        return columns[index]?.isRightAligned ? cell.padStart(size) : cell.padEnd(size);
      })
      .join("  ")
      .trimEnd();
  return [applyStyle("bold", formatRow(columns.map(({ title }) => title))), ...rows.map(formatRow)];
}

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/** A progress line with the elapsed time on a terminal; nothing in a pipe. */
export class Progress {
  readonly #startedAt = Date.now();
  readonly #timer: NodeJS.Timeout | undefined;
  #text: string;
  #frame = 0;
  #isShown = false;
  #isWithinLine = false;

  constructor(text: string, isWanted = true) {
    this.#text = text;
    if (isWanted && process.stderr.isTTY) this.#timer = setInterval(() => this.#draw(), 120).unref();
  }

  status(text: string): void {
    this.#text = text;
  }

  /** Erases the line before other output. */
  clear(): void {
    if (this.#isShown) process.stderr.write("\r\u001b[K");
    this.#isShown = false;
  }

  /** Tracks whether printed text has ended its line. Within a line, no progress is drawn, because that would erase the line. */
  trackOutput(text: string): void {
    if (text !== "") this.#isWithinLine = !text.endsWith("\n");
  }

  /** Prints a line for the user. If the output's last line has not ended, it first ends that line. */
  note(...lines: readonly string[]): void {
    this.clear();
    if (this.#isWithinLine && process.stderr.isTTY) process.stderr.write("\n");
    this.#isWithinLine = false;
    note(...lines);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.clear();
  }

  #draw(): void {
    if (this.#isWithinLine) return;
    const seconds = Math.floor((Date.now() - this.#startedAt) / 1000);
    const frame = FRAMES[this.#frame++ % FRAMES.length];
    const words = oneLine(`${this.#text} ${seconds} s`, (process.stderr.columns || 80) - 3);
    process.stderr.write(`\r\u001b[K${frame} ${words}`);
    this.#isShown = true;
  }
}

export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [value, unit] = [count, 0];
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  // From 59.95 s on, one decimal would be rounded to 60.0.
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
