/** What the command line says of itself. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { examplesOf } from "../../cli/command.ts";
import { EXIT } from "../../cli/exit.ts";
import { aligned, oneLine } from "../../cli/print.ts";
import { leaves } from "../../cli/program.ts";

const page = readFileSync(new URL("../../docs/cli.md", import.meta.url), "utf8");

test("docs/cli.md has every exit status, and no other", () => {
  const rows = [...page.matchAll(/^\| (\d+) \| (?:`(\w+)`)? ?\|/gm)].map(([, status]) => Number(status));
  expect(rows).toEqual(Object.values(EXIT));
});

test.each(leaves())("%s has examples whose options it has", (name, command) => {
  const examples = examplesOf(command);
  expect(examples).not.toEqual([]);
  for (const example of examples) {
    const own = example.split("sandbox-mcp ").at(-1) ?? "";
    expect(own.startsWith(`${name}`)).toBe(true);
    for (const [option] of own.replaceAll(/'[^']*'/g, "").matchAll(/--[a-z-]+/g))
      expect(command.options.map(({ long }) => long)).toContain(option);
  }
});

test("a table fits its terminal and shows no control characters", () => {
  const lines = aligned(
    [{ title: "N", right: true }, { title: "WHAT" }],
    [["10", oneLine("a\n\u001b[2Jb ".repeat(20))]],
    30,
  );
  expect(lines.map((line) => line.replaceAll("\u001b[1m", "").replaceAll("\u001b[22m", ""))).toEqual([
    " N  WHAT",
    "10  a b a b a b a b a b a b a…",
  ]);
});
