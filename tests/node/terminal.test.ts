/** A terminal's output as text and its size, and the durations that the command line and the panel show. */
import * as fc from "../setup/chance.ts";
import { describe, expect, it } from "vitest";
import { duration, oneLine } from "../../cli/print.ts";
import { duration as panelDuration } from "../../panel/format.ts";
import { OutputLog } from "../../panel/output-log.ts";
import { lastStates, spareBlanks, terminalText } from "../../src/runs/terminal-text.ts";
import { Resizing } from "../../src/shared/terminal/size.ts";
import { Typing } from "../../src/shared/terminal/typing.ts";
import { sleep, until } from "../setup/until.ts";

const ESC = "\u001b";

/** Checks that the size of the text is proportional to the output. */
function isBounded(output: string): boolean {
  return terminalText(output).length <= 2 * output.length + 1000;
}

describe("the log of a run in the panel", () => {
  it.each(["[4096G", "[9999C"])("moves the cursor only by some columns: %s", (sequence) => {
    const log = new OutputLog();
    log.append(`${ESC}${sequence}X\n`.repeat(1000));
    const characters = log.lines().reduce((sum, line) => sum + line.length, 0);
    expect(characters).toBe(512 * 1000);
    log.append(`${"a".repeat(600)}${ESC}[8Cb${ESC}[80Gc`);
    const [last] = log.lines().slice(-1);
    expect(last?.spans.map(({ text }) => text).join("")).toBe(`${"a".repeat(79)}c${"a".repeat(520)}b`);
  });

  it("shows marks that change the writing direction", () => {
    const log = new OutputLog();
    log.append("rm \u202etxt.a\u200f\n");
    expect(log.lines()[0]?.spans.map(({ text }) => text)).toEqual(["rm ⟨U+202E⟩txt.a⟨U+200F⟩"]);
  });
});

describe("the text of a terminal", () => {
  it.each([
    ["colours", `${ESC}[1;31mred${ESC}[0m plain`, "red plain"],
    ["several lines", "one\r\ntwo\r\n", "one\ntwo\n"],
    ["overwritten text", "10 %\r100 %\r\nok", "100 %\nok"],
    ["erased text", `downloading${ESC}[2K\rdone${ESC}[K`, "done"],
    ["a backspace", "helo\b \b\blo", "helo".slice(0, 2) + "lo"],
    ["inserted and deleted characters", `held${ESC}[3D${ESC}[@XX${ESC}[P`, "hXXd"],
    ["a title", `${ESC}]0;title\u0007text`, "text"],
    ["a device control string", `${ESC}P1;2q#0${ESC}\\text`, "text"],
    ["a full-screen program", `${ESC}[?1049h${ESC}[2J${ESC}[1;1Hfirst${ESC}[10;5Hsecond`, "first\nsecond"],
    ["overwritten lines above the cursor", `a\nb\n${ESC}[2A1${ESC}[B\r2${ESC}[E3`, "1\n2\n3"],
    ["erased lines above the cursor", `a\nb\n${ESC}[2A${ESC}[Jc`, "c"],
    ["bells and other characters", "a\u0007\u0000b", "ab"],
    ["tabs and letters of any kind", "a\tžluť 🐎", "a\tžluť 🐎"],
  ])("shows %s correctly", (_what, output, text) => {
    expect(terminalText(output)).toBe(text);
  });

  it("contains the whole of a line that is longer than any terminal is wide", () => {
    const long = `${"0123456789".repeat(500)}`;
    expect(terminalText(`${long}\n${long}`)).toBe(`${long}\n${long}`);
  });

  it.each([
    ["insertions", `${ESC}[999@`],
    ["insertions before text", `${"x".repeat(2000)}\r${`${ESC}[999@`.repeat(10)}`],
    ["short insertions before text", `${"x".repeat(999)}\r${`${ESC}[@`.repeat(500)}`],
    ["deletions in a long line", `${"x".repeat(1500)}\r${`${ESC}[P`.repeat(500)}`],
    ["movements to a line's end", `${ESC}[999Cx${ESC}[H`],
    ["movements of any length", `${ESC}[999999999Cx${ESC}[1G${ESC}[${"9".repeat(400)}@y`],
    ["titles that do not end", `${ESC}]0;${"x".repeat(1000)}${ESC}Z`],
    ["sequences of numbers that do not end", `${ESC}[${"1;".repeat(500)}\n`],
  ])("has a limited size: %s", (_what, output) => {
    for (const times of [1, 10, 100]) expect(isBounded(output.repeat(times))).toBe(true);
  });

  it("has a limited size with any output", () => {
    const sequence = fc
      .tuple(fc.constantFrom("", "1", "2", "40", "999", "1000000"), fc.constantFrom(..."@ABCDEFGHJKPdfm"))
      .map(([count, final]) => `${ESC}[${count}${final}`);
    const printed = fc.oneof(
      sequence,
      fc.constantFrom("\n", "\r", "\b", "\t", `${ESC}]`, ESC, "\u0007", "🐎"),
      fc.string(),
      fc.nat(3000).map((length) => "x".repeat(length)),
    );
    const output = fc.tuple(fc.array(printed, { maxLength: 50 }), fc.integer({ min: 1, max: 30 }));
    fc.assert(
      fc.property(output, ([parts, times]) => {
        expect(isBounded(parts.join("").repeat(times))).toBe(true);
      }),
    );
  });

  it("can be changed by cursor movements only in its last 50 rows", () => {
    const lines = Array.from({ length: 200 }, (_, n) => n);
    expect(terminalText(`${lines.join("\n")}${ESC}[999A\rtop`)).toBe(
      lines.map((n) => (n === 150 ? "top" : n)).join("\n"),
    );
  });
});

describe("the last lines of a terminal", () => {
  it("show nested progress bars, as tqdm prints them", () => {
    const steps = Array.from({ length: 20 }, (_, n) => `\n\rinner: ${n + 1}/20${ESC}[A`);
    const outer = Array.from({ length: 5 }, (_, n) => `\router: ${n + 1}/5${steps.join("")}`);
    expect(lastStates(`before\n${outer.join("")}`)).toBe("before\nouter: 5/5\ninner: 20/20");
  });

  it.each(["C", "G", "@"])(
    "have a limited size, also if each line moves the cursor or inserts: CSI %s",
    (final) => {
      const output = `\r${ESC}[999${final}x\r${ESC}[999${final}\n`.repeat(1000);
      expect(lastStates(output).length).toBeLessThanOrEqual(2 * output.length + 1000);
      const spare = spareBlanks();
      const spans = output.split("\n").map((span) => lastStates(span, spare));
      expect(spans.join("").length).toBeLessThanOrEqual(2 * output.length + 1000);
      expect(lastStates(`a\r${ESC}[9Cb\nc\r${ESC}[9Cd`)).toBe(`a${" ".repeat(8)}b\nc${" ".repeat(8)}d`);
    },
  );
});

it("a line for a terminal is cut between two characters", () => {
  for (const width of [4, 5]) expect(oneLine("😀".repeat(10), width)).toMatch(/^(?:😀)+…$/u);
});

it("typed text is sent in pieces of whole characters", async () => {
  const typed = `x${"😀".repeat(3000)}`;
  let sent = "";
  const typing = new Typing(
    async (text) => void (sent += text),
    () => undefined,
  );
  typing.type(typed);
  await until(() => sent.length === typed.length);
  expect(sent === typed).toBe(true);
});

it.each([
  [59_960, "1 min 0 s", "1 min 0 s"],
  [119_700, "2 min 0 s", "2 min 0 s"],
  [3_599_700, "60 min 0 s", "1 h 0 min"],
])("the command line shows %i ms as %s, and the panel as %s", (ms, inTerminal, inPanel) => {
  expect([duration(ms), panelDuration(ms)]).toEqual([inTerminal, inPanel]);
});

it("a terminal's new size is sent again after a failed call, until resizing is stopped", async () => {
  const passed: number[] = [];
  let failures = 2;
  let rows = 50;
  const resizing = new Resizing(
    () => ({ rows, columns: 90 }),
    async (size) => {
      passed.push(size.rows);
      if (failures-- > 0) throw new Error("the connection broke");
    },
  );
  resizing.start();
  await until(() => passed.length === 3);
  failures = Infinity;
  rows = 60;
  resizing.start();
  await until(() => passed.length === 4);
  resizing.stop();
  await sleep(700);
  expect(passed).toEqual([50, 50, 50, 60]);
});
