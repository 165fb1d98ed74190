/** Nothing is published in the name of nobody. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const FILES = ["package.json", "server.json", "README.md"];

let copy: string;

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), "owner-"));
  cpSync(join(root, "scripts/owner.ts"), join(copy, "scripts/owner.ts"));
  // Whoever publishes has put the name there already.
  for (const file of FILES) {
    const text = readFileSync(join(root, file), "utf8");
    writeFileSync(
      join(copy, file),
      text.replace(/(io\.github\.|github\.com\/)[\w-]+(?=\/sandbox-mcp\b)/g, "$1OWNER"),
    );
  }
});
afterAll(() => rmSync(copy, { recursive: true }));

function owner(word: string): number | null {
  return spawnSync(process.execPath, [join(copy, "scripts/owner.ts"), word]).status;
}

test("npm publish asks for the owner first", () => {
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  expect(scripts.prepublishOnly).toBe("node scripts/owner.ts --check");
  expect(owner("--check")).toBe(1);
});

test("the owner is put into every place", () => {
  expect(owner("no name")).toBe(64);
  expect(owner("acme")).toBe(0);
  expect(owner("--check")).toBe(0);
  for (const file of FILES) {
    const text = readFileSync(join(copy, file), "utf8");
    expect(text).toMatch(/(io\.github\.|github\.com\/)acme\/sandbox-mcp/);
    expect(text).not.toContain("OWNER/");
  }
});
