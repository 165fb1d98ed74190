/** The paths of this program's files and of its user's state. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import description from "../package.json" with { type: "json" };
import { shellWord } from "../src/shared/text.ts";
import { moduleExtension, repository } from "../local/engine/own-files.ts";

/** The clone's directory; in the npm package, the directory of the build. */
export const root = repository;

/** Whether this is the npm package instead of a clone: its modules are JavaScript. */
export const isPackaged = moduleExtension === ".js";

/**
 * The command that starts this program. npx's cache is temporary, so for a file in it, the command is npx with the package's
 * source.
 */
export function programCommand(file: string, version: string): [command: string, ...args: string[]] {
  const [, cache] = /^(.*[\\/]_npx[\\/][0-9a-f]+)[\\/]/.exec(file) ?? [];
  if (cache === undefined) return [process.execPath, file];
  const { dependencies }: { dependencies?: Record<string, string> } = JSON.parse(
    readFileSync(join(cache, "package.json"), "utf8"),
  );
  const [, tarball] = /^file:(.+)/.exec(dependencies?.["sandbox-mcp"] ?? "") ?? [];
  // Without `file:`, npx would execute the file itself.
  return ["npx", "-y", tarball === undefined ? `sandbox-mcp@${version}` : `file:${resolve(cache, tarball)}`];
}

/**
 * The command for a client's configuration. Clients start it in the user's project, to which a sandbox may write. There, npx
 * would run programs of that directory (`node_modules/.bin/sh`), so the command runs npx in the home directory.
 */
export function clientCommand(file: string, version: string): [command: string, ...args: string[]] {
  const [command, ...args] = programCommand(file, version);
  if (command !== "npx" || process.platform === "win32") return [command, ...args];
  return ["sh", "-c", 'cd && exec npx "$@"', "npx", ...args];
}

/** The command that starts the server with these options. A package has no `npm start`. */
export function startLine(options = ""): string {
  const words = isPackaged
    ? [`${PACKAGE_PROGRAM} start`, options]
    : ["npm start", options && `-- ${options}`];
  return words.filter(Boolean).join(" ");
}

export const PROGRAM_FILE = join(root, "cli", isPackaged ? "bin.js" : "main.ts");

const ownCommand = programCommand(PROGRAM_FILE, description.version);
/** How the user of a package calls the program. With npx, `sandbox-mcp` is not in the PATH. */
export const PACKAGE_PROGRAM = ownCommand[0] === "npx" ? ownCommand.map(shellWord).join(" ") : "sandbox-mcp";

/** How the user calls this command line, for messages. */
export const PROGRAM = process.env.npm_lifecycle_event === "cli" ? "npm run cli --" : PACKAGE_PROGRAM;

/** The default state directory. npm may remove a package at any time, so a package uses the user's directory. */
export function defaultStateDir(env: Readonly<Record<string, string | undefined>>): string {
  if (!isPackaged) return join(root, ".sandbox-mcp");
  const stateHome = env.XDG_STATE_HOME;
  // The XDG specification says that relative paths are ignored.
  const states =
    stateHome !== undefined && isAbsolute(stateHome) ? stateHome : join(homedir(), ".local/state");
  return join(states, "sandbox-mcp");
}

/** The file of the Worker's variables, including a generated token. */
export function variablesFile(env: Readonly<Record<string, string | undefined>>): string {
  return join(isPackaged ? defaultStateDir(env) : root, ".dev.vars");
}
