/** Where this program's own files are, and where it keeps what is its user's. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import description from "../package.json" with { type: "json" };
import { shellWord } from "../src/shared/text.ts";
import { moduleExtension, repository } from "../local/engine/own-files.ts";

/** The clone's directory; in the package, the directory of what was built. */
export const root = repository;

/** Whether this is the package as npm installs it, and no clone: its modules are JavaScript. */
export const isPackaged = moduleExtension === ".js";

/**
 * What a client starts this program by: this Node and the program's file. A file in the cache of npx is there for a while only; then it is
 * npx with what this program came from.
 * @param file the program's
 */
export function programCommand(file: string, version: string): [command: string, ...args: string[]] {
  const [, cache] = /^(.*[\\/]_npx[\\/][0-9a-f]+)[\\/]/.exec(file) ?? [];
  if (cache === undefined) return [process.execPath, file];
  const { dependencies }: { dependencies?: Record<string, string> } = JSON.parse(
    readFileSync(join(cache, "package.json"), "utf8"),
  );
  const [, tarball] = /^file:(.+)/.exec(dependencies?.["sandbox-mcp"] ?? "") ?? [];
  return ["npx", "-y", tarball === undefined ? `sandbox-mcp@${version}` : resolve(cache, tarball)];
}

/** How the user starts the server, with these options: a package has no `npm start`. */
export function startLine(options = ""): string {
  const words = isPackaged
    ? [`${PACKAGE_PROGRAM} start`, options]
    : ["npm start", options && `-- ${options}`];
  return words.filter(Boolean).join(" ");
}

/** The program itself. */
export const PROGRAM_FILE = join(root, "cli", isPackaged ? "bin.js" : "main.ts");

/** How a user of the package calls it: where npx has fetched it, `sandbox-mcp` is on no PATH. */
export const PACKAGE_PROGRAM = programOf(PROGRAM_FILE);

function programOf(file: string): string {
  const words = programCommand(file, description.version);
  return words[0] === "npx" ? words.map(shellWord).join(" ") : "sandbox-mcp";
}

/** The state directory where none is named. npm may remove a package at any time, so that of a package is the user's. */
export function defaultStateDir(env: Readonly<Record<string, string | undefined>>): string {
  if (!isPackaged) return join(root, ".sandbox-mcp");
  const given = env.XDG_STATE_HOME;
  // The specification of these directories has relative paths ignored.
  const states = given !== undefined && isAbsolute(given) ? given : join(homedir(), ".local/state");
  return join(states, "sandbox-mcp");
}

/** The file of the Worker's variables, where a generated token is kept. */
export function variablesFile(env: Readonly<Record<string, string | undefined>>): string {
  return join(isPackaged ? defaultStateDir(env) : root, ".dev.vars");
}
