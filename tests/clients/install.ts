/**
 * Installs the clients that tests and examples use, if they are missing: `npm run clients`. vitest's configuration
 * and `npm run check` call it first.
 */
import { lstatSync, symlinkSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { installPackages } from "../../local/engine/packages.ts";

const directory = fileURLToPath(new URL(".", import.meta.url)).replace(/\/$/, "");

/** The directories that also import these clients. */
const IMPORTERS = ["examples", "client/adapters"];

/** @throws Error with npm's reason */
export async function installClients(say: (line: string) => void): Promise<void> {
  const title = "the clients of the tests and examples (LangChain, Mastra, Playwright, ...)";
  await installPackages({ title, manifest: directory, directory }, say);
  for (const importer of IMPORTERS) {
    const link = join(directory, "../..", importer, "node_modules");
    const isThere = () => lstatSync(link, { throwIfNoEntry: false }) !== undefined;
    if (isThere()) continue;
    try {
      symlinkSync(relative(dirname(link), join(directory, "node_modules")), link);
    } catch (error) {
      // Another process created it meanwhile.
      if (!isThere()) throw error;
    }
  }
}

if (import.meta.main) {
  await installClients((line) => void process.stderr.write(`${line}\n`)).catch((error: Error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
}
