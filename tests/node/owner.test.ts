import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, test } from "vitest";
import { temporaryDirectory } from "../setup/temporary.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const FILES = ["package.json", "server.json", "README.md", "docs/start/quick-start.md"];

const copy = temporaryDirectory();

beforeAll(() => {
  cpSync(join(root, "scripts/owner.ts"), join(copy, "scripts/owner.ts"));
  // A clone that was published before already has the name.
  for (const file of FILES) {
    const text = readFileSync(join(root, file), "utf8");
    mkdirSync(dirname(join(copy, file)), { recursive: true });
    writeFileSync(
      join(copy, file),
      text.replace(/(io\.github\.|github\.com\/)[\w-]+(?=\/sandbox-mcp\b)/g, "$1OWNER"),
    );
  }
});

function owner(word: string): number | null {
  return spawnSync(process.execPath, [join(copy, "scripts/owner.ts"), word]).status;
}

test("npm publish fails until the owner's name is set", () => {
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  expect(scripts.prepublishOnly).toBe("node scripts/owner.ts --check");
  expect(owner("--check")).toBe(1);
});

test("scripts/owner.ts writes the owner's name into every file that needs it", () => {
  expect(owner("no name")).toBe(64);
  expect(owner("acme")).toBe(0);
  expect(owner("--check")).toBe(0);
  for (const file of FILES) {
    const text = readFileSync(join(copy, file), "utf8");
    expect(text).toMatch(/(io\.github\.|github\.com\/)acme\/sandbox-mcp/);
    expect(text).not.toContain("OWNER/");
  }
});
