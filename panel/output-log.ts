/**
 * A program's output as lines of text. Colors and line rewrites are applied, other control sequences are dropped, and control
 * characters are shown as symbols, such as ␛, and marks that change the writing direction as their code points. So output is always
 * shown as text, in the order in which it was printed.
 */
import { escapeOrdering } from "./escape-ordering.ts";
import { outputLeftOut } from "./texts.ts";

/** A span of a line in one style; `style` contains class names. */
export interface Span {
  text: string;
  style: string;
}

export interface Line {
  spans: readonly Span[];
  length: number;
}

/** The longest line in characters. A longer line is split. */
const MAX_LINE = 4096;

/** The column up to which a sequence moves the cursor: each short sequence makes as many cells. */
const MAX_COLUMN = 512;

/** The most characters and lines that a log keeps. It drops the oldest lines. */
const MAX_CHARACTERS = 2_000_000;
const MAX_LINES = 20_000;

/** The longest incomplete control sequence that waits for the next chunk. */
const MAX_SEQUENCE = 4096;

const TAB = 8;

/** A control sequence (ECMA-48): CSI, a string (OSC, DCS, APC, PM, SOS) with its end, or a single escape. */
// oxlint-disable-next-line no-control-regex
const SEQUENCE = /^\x1b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\`-~])/;

/** An incomplete sequence at the end of a chunk. */
// oxlint-disable-next-line no-control-regex
const UNFINISHED = /^\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)$/;

/** Attributes by the codes that set and reset them. */
const SET: Record<number, Attribute> = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse" };
const RESET: Record<number, readonly Attribute[]> = {
  22: ["bold", "dim"],
  23: ["italic"],
  24: ["underline"],
  27: ["inverse"],
};

type Attribute = "bold" | "dim" | "italic" | "underline" | "inverse";

interface Style {
  color?: number | undefined;
  background?: number | undefined;
  attributes: readonly Attribute[];
}

const PLAIN: Style = { attributes: [] };

interface Cell {
  character: string;
  style: string;
}

export class OutputLog {
  #lines: Line[] = [];
  #characters = 0;
  /** The current line, and the cursor's column. */
  #cells: Cell[] = [];
  #column = 0;
  #style = PLAIN;
  #classes = "";
  /** An incomplete control sequence, completed by the next chunk. */
  #pending = "";
  /** Whether earlier lines were dropped. */
  isCut = false;

  lines(): readonly Line[] {
    return this.#cells.length > 0 ? [...this.#lines, lineOf(this.#cells)] : [...this.#lines];
  }

  append(text: string): void {
    let rest = this.#pending + text;
    this.#pending = "";
    while (rest !== "") {
      const escape = rest.indexOf("\x1b");
      this.#write(escape < 0 ? rest : rest.slice(0, escape));
      if (escape < 0) break;
      rest = rest.slice(escape);
      const sequence = SEQUENCE.exec(rest);
      if (sequence) {
        this.#applySequence(sequence[2], sequence[1] ?? "");
        rest = rest.slice(sequence[0].length);
      } else if (rest.length <= MAX_SEQUENCE && UNFINISHED.test(rest)) {
        this.#pending = rest;
        break;
      } else {
        this.#write("\u241b");
        rest = rest.slice(1);
      }
    }
    this.#trim();
  }

  /** Shows that `bytes` bytes of output are missing. */
  addGap(bytes: number): void {
    if (this.#cells.length > 0) this.#endLine();
    this.#pending = "";
    const text = outputLeftOut(bytes);
    this.#lines.push({ spans: [{ text, style: "left-out" }], length: text.length });
  }

  #write(text: string): void {
    for (const character of escapeOrdering(text)) {
      if (character === "\n") this.#endLine();
      else if (character === "\r") this.#column = 0;
      else if (character === "\b") this.#column = Math.max(0, this.#column - 1);
      else if (character === "\t") {
        const next = this.#column + TAB - (this.#column % TAB);
        while (this.#column < Math.min(next, MAX_LINE)) this.#put(" ");
      } else this.#put(pictureOf(character));
    }
  }

  #put(character: string): void {
    if (this.#column >= MAX_LINE) this.#endLine();
    while (this.#cells.length < this.#column) this.#cells.push({ character: " ", style: "" });
    this.#cells[this.#column] = { character, style: this.#classes };
    this.#column++;
  }

  #endLine(): void {
    const line = lineOf(this.#cells);
    this.#lines.push(line);
    this.#characters += line.length;
    this.#cells = [];
    this.#column = 0;
  }

  #applySequence(command: string | undefined, parameters: string): void {
    const [first = 0] = numbers(parameters);
    if (command === "m") {
      this.#style = applyCodes(this.#style, numbers(parameters));
      this.#classes = classesOf(this.#style);
    } else if (command === "K") {
      if (first === 0) this.#cells.length = Math.min(this.#cells.length, this.#column);
      else if (first === 2) this.#cells = [];
    } else if (command === "G") this.#column = Math.min(Math.max(1, first), MAX_COLUMN) - 1;
    else if (command === "C")
      this.#column = Math.max(this.#column, Math.min(this.#column + Math.max(1, first), MAX_COLUMN - 1));
    else if (command === "D") this.#column = Math.max(0, this.#column - Math.max(1, first));
  }

  #trim(): void {
    let removed = 0;
    let left = this.#characters;
    while (left > MAX_CHARACTERS || this.#lines.length - removed > MAX_LINES) {
      left -= this.#lines[removed]?.length ?? 0;
      removed++;
    }
    if (removed === 0) return;
    this.#lines = this.#lines.slice(removed);
    this.#characters = left;
    this.isCut = true;
  }
}

/** Pictures of control characters, and a replacement for halves of surrogate pairs. */
function pictureOf(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  if ((code >= 0x80 && code < 0xa0) || (code >= 0xd800 && code < 0xe000)) return "\ufffd";
  return character;
}

function lineOf(cells: readonly Cell[]): Line {
  const spans: Span[] = [];
  let characters: string[] = [];
  for (const [index, { character, style }] of cells.entries()) {
    characters.push(character);
    if (cells[index + 1]?.style === style) continue;
    // Joined, because a text that is built character by character takes 20 times as much memory.
    spans.push({ text: characters.join(""), style });
    characters = [];
  }
  return { spans, length: cells.length };
}

function numbers(parameters: string): number[] {
  return parameters.split(/[;:]/).map((part) => Number.parseInt(part, 10) || 0);
}

function applyCodes(before: Style, codes: readonly number[]): Style {
  let style = { ...before };
  for (let index = 0; index < codes.length; index++) {
    const code = codes[index] ?? 0;
    const attribute = SET[code];
    if (code === 0) style = { ...PLAIN };
    else if (attribute) style.attributes = [...new Set(style.attributes).add(attribute)];
    else if (RESET[code]) style.attributes = style.attributes.filter((one) => !RESET[code]?.includes(one));
    else if (code >= 30 && code <= 37) style.color = code - 30;
    else if (code >= 90 && code <= 97) style.color = code - 90 + 8;
    else if (code === 39) style.color = undefined;
    else if (code >= 40 && code <= 47) style.background = code - 40;
    else if (code >= 100 && code <= 107) style.background = code - 100 + 8;
    else if (code === 49) style.background = undefined;
    else if (code === 38 || code === 48) {
      const isIndexed = codes[index + 1] === 5;
      const [r = 0, g = 0, b = 0] = codes.slice(index + 2, index + 5);
      const color = isIndexed ? paletteColor(codes[index + 2] ?? 0) : nearestColor(r, g, b);
      if (code === 38) style.color = color;
      else style.background = color;
      index += isIndexed ? 2 : 4;
    }
  }
  return style;
}

/** Maps one of 256 colors to one of the page's 16, which are readable in light and dark. */
function paletteColor(index: number): number {
  if (index < 16) return index;
  if (index >= 232) {
    const gray = 8 + (index - 232) * 10;
    return nearestColor(gray, gray, gray);
  }
  const level = (part: number) => [0, 95, 135, 175, 215, 255][part % 6] ?? 0;
  const cube = index - 16;
  return nearestColor(level(Math.floor(cube / 36)), level(Math.floor(cube / 6)), level(cube));
}

function nearestColor(red: number, green: number, blue: number): number {
  const brightest = Math.max(red, green, blue);
  if (brightest - Math.min(red, green, blue) < 40)
    return brightest < 64 ? 0 : brightest < 150 ? 8 : brightest < 220 ? 7 : 15;
  const part = (value: number, bit: number) => (value > brightest * 0.6 ? bit : 0);
  return (part(red, 1) | part(green, 2) | part(blue, 4)) + (brightest > 200 ? 8 : 0);
}

function classesOf({ color, background, attributes }: Style): string {
  const colors = [color !== undefined && `f${color}`, background !== undefined && `b${background}`];
  return [...colors.filter(Boolean), ...attributes].join(" ");
}
