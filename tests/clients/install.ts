/**
 * Installs the clients that tests and examples use, where that is not done: `npm run clients`. `npm test`, every suite, and
 * `npm run check` do it first.
 */
import { lstatSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { installPackages } from "../../local/engine/packages.ts";

const directory = fileURLToPath(new URL(".", import.meta.url)).replace(/\/$/, "");
const examples = join(directory, "../../examples/node_modules");

/** @throws Error with npm's reason */
export async function installClients(say: (line: string) => void): Promise<void> {
  const title = "the clients of the tests and examples (LangChain, Mastra, Playwright, ...)";
  await installPackages({ title, manifest: directory, directory }, say);
  if (lstatSync(examples, { throwIfNoEntry: false }) !== undefined) return;
  try {
    symlinkSync("../tests/clients/node_modules", examples);
  } catch (error) {
    // Another process has made it meanwhile.
    if (lstatSync(examples, { throwIfNoEntry: false }) === undefined) throw error;
  }
}

if (import.meta.main) {
  await installClients((line) => void process.stderr.write(`${line}\n`)).catch((error: Error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
}
