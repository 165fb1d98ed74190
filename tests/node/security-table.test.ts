import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), "utf8");

/** Where a test is whose file the row does not say. */
const ATTACKS = readdirSync(new URL("tests/worker/auth", root))
  .filter((file) => file.startsWith("attacks"))
  .map((file) => `tests/worker/auth/${file}`);

/** The tests a row of the table names: those before a file in brackets are in that file. */
function named(cell: string): { name: string; files: string[] }[] {
  const parts = cell.split(/, in Chromium |(?<=\.ts\)), /);
  return parts.flatMap((part) => {
    const file = /\((tests\/[\w/.-]+)\)\s*$/.exec(part)?.[1];
    const files = file === undefined ? ATTACKS : [file];
    return Array.from(part.matchAll(/`([^`]+)`/g), ([, name = ""]) => ({ name, files }));
  });
}

test("every attack in docs/security.md has the tests that its row names", () => {
  const [, ...tables] = read("docs/security.md").split("| attack | what happens | test |");
  const lines = tables.flatMap((table) => table.split("\n"));
  const rows = lines.filter((line) => line.startsWith("| ") && !line.startsWith("| ---"));
  expect(rows.length).toBeGreaterThan(30);
  for (const row of rows) {
    const tests = named(
      row
        .replace(/\s*\|\s*$/, "")
        .split(" | ")
        .at(-1) ?? "",
    );
    expect(tests).not.toEqual([]);
    const missing = tests.filter(
      ({ name, files }) => !files.some((file) => read(file).includes(`"${name}"`)),
    );
    expect(missing).toEqual([]);
  }
});
