/** Nothing is published in the name of nobody. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const FILES = ["package.json", "server.json", "README.md"];

let copy: string;

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), "owner-"));
  for (const file of [...FILES, "scripts/owner.ts"]) cpSync(join(root, file), join(copy, file));
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
