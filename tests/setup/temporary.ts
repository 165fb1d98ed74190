/** Temporary directories of a test file. They are removed after its tests. */
import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";

const created: string[] = [];

// Hooks run in reverse order, so this one runs after those of the importing file.
afterAll(() =>
  created.forEach((directory) => rmSync(directory, { recursive: true, force: true, maxRetries: 5 })),
);

export function temporaryDirectory(parent = tmpdir()): string {
  const directory = realpathSync(mkdtempSync(join(parent, "sandbox-mcp-test-")));
  created.push(directory);
  return directory;
}
