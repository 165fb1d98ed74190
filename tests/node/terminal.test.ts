/** What a terminal's output says as text. */
import { describe, expect, it } from "vitest";
import { isEchoOf, terminalText, unfinishedSequence } from "../../src/runs/terminal.ts";

const ESC = "\u001b";

describe("the text of a terminal", () => {
  it.each([
    ["colours", `${ESC}[1;31mred${ESC}[0m plain`, "red plain"],
    ["lines", "one\r\ntwo\r\n", "one\ntwo\n"],
    ["what is overwritten", "10 %\r100 %\r\nok", "100 %\nok"],
    ["what is erased", `downloading${ESC}[2K\rdone${ESC}[K`, "done"],
    ["a backspace", "helo\b \b\blo", "helo".slice(0, 2) + "lo"],
    ["characters put in and taken out", `held${ESC}[3D${ESC}[@XX${ESC}[P`, "hXXd"],
    ["a title", `${ESC}]0;title\u0007text`, "text"],
    ["a device control string", `${ESC}P1;2q#0${ESC}\\text`, "text"],
    ["a screen", `${ESC}[?1049h${ESC}[2J${ESC}[1;1Hfirst${ESC}[10;5Hsecond`, "first\nsecond"],
    ["bells and other characters", "a\u0007\u0000b", "ab"],
    ["tabs and letters of any kind", "a\tžluť 🐎", "a\tžluť 🐎"],
  ])("holds %s", (_what, output, text) => {
    expect(terminalText(output)).toBe(text);
  });

  it("takes no more room than a line's width for what a sequence asks for", () => {
    expect(terminalText(`${ESC}[999999999Cx${ESC}[1G${ESC}[999999999@y`).length).toBeLessThan(3000);
  });

  it("is complete up to a sequence that is cut", () => {
    expect(unfinishedSequence(`text${ESC}[1;3`)).toBe(5);
    expect(unfinishedSequence(`text${ESC}`)).toBe(1);
    expect(unfinishedSequence(`text${ESC}[1;31m`)).toBe(0);
  });
});

describe("an echo", () => {
  const echoes = (typed: string, output: string) => isEchoOf(typed, new TextEncoder().encode(output));

  it("is what was typed, whole or in part", () => {
    expect(echoes("make\r", "ma")).toBe(true);
    expect(echoes("make all\r", `make all\r\n${ESC}[?2004l\r`)).toBe(true);
  });

  it("is no answer of a program's, and no key of its own", () => {
    expect(echoes("make\r", "make\r\nok")).toBe(false);
    expect(echoes("\u0003", "^C")).toBe(false);
    expect(echoes("q", "q")).toBe(false);
  });
});
