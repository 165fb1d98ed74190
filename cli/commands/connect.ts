import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  openSync,
  readFileSync,
  realpathSync,
  statSync,
} from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { Argument, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { makeDirectories } from "../make-directories.ts";
import description from "../../package.json" with { type: "json" };
import { entryIn, setEntry } from "../client-file.ts";
import { type ClientKind, CLIENTS, type Endpoint, type Place } from "../clients.ts";
import { serverCommand } from "../define-command.ts";
import { confirm } from "../confirm.ts";
import { UserError } from "../exit.ts";
import { clientCommand, PROGRAM_FILE } from "../program-files.ts";
import { keepCopy, replaceFile } from "../output-files.ts";
import { isSameOrAbove } from "../linked-paths.ts";
import { json, line, note } from "../print.ts";
import { findRunning } from "../running.ts";
import {
  userPath,
  serverAddress,
  type ServerAddress,
  type ServerOptions,
  stateDirectory,
  VARIABLES_FILE,
} from "../server-address.ts";
import * as texts from "./texts.ts";
import { CLIENT_FILE, WRONG_VALUE } from "../texts.ts";

export const connect = serverCommand(
  "connect",
  "add the server to a client's configuration; keep a copy of the file, and ask before replacing an entry",
  ["connect claude-code", "connect vscode --project .", "connect claude-desktop --print"],
)
  .addArgument(new Argument("<client>", "the client").choices(CLIENTS.map(({ name }) => name)))
  .option("--project <directory>", "only for the project in this directory, if the client supports that")
  .option("--name <name>", "the server's name in the client", serverName, "sandbox")
  .option("--sandbox <name>", "the sandbox for calls that do not name one")
  .addOption(
    new Option("--transport <kind>", "how the client connects: by http, or by starting a process").choices([
      "http",
      "stdio",
    ]),
  )
  .option("--print", "print the configuration without writing it")
  .option("--yes", "replace an entry without asking")
  .action(async (chosen, { project, name, sandbox, transport, print, yes, ...options }) => {
    const client = CLIENTS.find((each) => each.name === chosen) as ClientKind;
    const http = transport === undefined ? client.speaksHTTP : transport === "http";
    if (http && !client.speaksHTTP) throw texts.onlyByProcess(client.title);
    const entry = client.entry(
      http
        ? httpEndpoint(serverAddress(options), sandbox)
        : processEndpoint(addressIfAny(options), sandbox, options),
    );
    const place = placeOf(client, project);
    const file = join(place.directory, place.path);
    if (print) {
      const shown = setEntry(client, "", name, entry);
      if (options.json) json(true, { client: chosen, file, entry, written: false });
      else line(`${file}:`, ...shown.trimEnd().split("\n"));
      return;
    }
    requireDirectory(place);
    const at = project === undefined ? { path: file } : openDirectoryOf(place.directory, file);
    const earlier = withFileErrors(file, () => readEarlier(at));
    const text = earlier?.toString() ?? "";
    const before = withFileErrors(file, () => entryIn(client, text, name));
    const after = withFileErrors(file, () => setEntry(client, text, name, entry));
    if (isDeepStrictEqual(before, JSON.parse(JSON.stringify(entry)))) {
      if (options.json) json(true, { client: chosen, file, written: false });
      else line(texts.CONNECT.unchanged(client.title, file));
      return;
    }
    if (before !== undefined && !yes) {
      const question = texts.CONNECT.replace(file, name);
      if (!process.stdin.isTTY) throw texts.confirmByOption(question);
      await confirm(question);
    }
    const copy = withFileErrors(file, () => write(at, after, earlier));
    if (options.json) return json(true, { client: chosen, file, copy, written: true });
    line(`${client.title}: ${file}`);
    if (copy !== undefined) note(texts.CONNECT.copy(copy));
    if (project !== undefined && http) note(texts.CONNECT.holdsToken);
    note(client.next);
  });

/** A server name that is valid in every client. Clients use it in tool names, where only these characters are allowed. */
function serverName(text: string): string {
  if (/^[\w-]{1,64}$/.test(text)) return text;
  throw new InvalidArgumentError(WRONG_VALUE.server);
}

function httpEndpoint({ url, token }: ServerAddress, sandbox: string | undefined): Endpoint {
  const endpoint = new URL(url);
  if (sandbox !== undefined) endpoint.searchParams.set("sandbox", sandbox);
  return { kind: "http", url: endpoint.href, token };
}

/** The server's address; undefined if the bridge will start the local server, because that server has no address yet. */
function addressIfAny(options: ServerOptions): ServerAddress | undefined {
  const isNamed = options.url !== undefined || process.env.SANDBOX_MCP_URL !== undefined;
  const isRunning = findRunning(stateDirectory(options)) !== undefined;
  return isNamed || isRunning ? serverAddress(options) : undefined;
}

/** The command that starts the bridge. The bridge reads a local server's token from the file of variables. */
function processEndpoint(
  address: ServerAddress | undefined,
  sandbox: string | undefined,
  options: ServerOptions,
): Endpoint {
  const isLocal = address?.isLocal ?? true;
  const [command, ...words] = clientCommand(PROGRAM_FILE, description.version);
  const args = [...words, "stdio"];
  if (sandbox !== undefined) args.push("--sandbox", sandbox);
  if (isLocal) args.push("--state-dir", stateDirectory(options));
  const env: Record<string, string> = {};
  if (address && !isLocal) env.SANDBOX_MCP_URL = address.url;
  if (address && address.tokenSource !== VARIABLES_FILE) env.SANDBOX_MCP_TOKEN = address.token;
  return { kind: "process", command, args, env };
}

function placeOf(client: ClientKind, project: string | undefined): Place {
  if (project === undefined)
    return client.place({ platform: process.platform, home: homedir(), env: process.env });
  if (client.projectFile === undefined) throw texts.noProjectFile(client.title);
  return { directory: userPath(project), path: client.projectFile, variable: "--project" };
}

/** The file to change. If its path leads through an open directory, `real` is the path of the same file without it. */
interface Target {
  path: string;
  real?: string;
}

/**
 * A path through the file's open directory, because a sandbox that mounts the project could at any time exchange the directory, or
 * the file, with a symbolic link. Only on Linux, sandboxes can mount directories.
 * @throws {CommandError} if a symbolic link leads out of the project
 */
function openDirectoryOf(project: string, file: string): Target {
  requireInside(project, file);
  if (process.platform !== "linux") return { path: file };
  return withFileErrors(file, () => {
    makeDirectories(dirname(file));
    const target = existsSync(file) ? realpathSync(file) : file;
    // It stays open until the program ends.
    const directory = `/proc/self/fd/${openSync(dirname(target), constants.O_RDONLY | constants.O_DIRECTORY)}`;
    const real = realpathSync(directory);
    refuseOutside(project, real);
    return { path: join(directory, basename(target)), real: join(real, basename(target)) };
  });
}

/** @throws {CommandError} if a symbolic link leads out of the project: a sandbox that mounts the project could have made it */
function requireInside(project: string, file: string): void {
  let path = file;
  while (!existsSync(path) && path !== project) path = dirname(path);
  if (path !== project) withFileErrors(file, () => refuseOutside(project, realpathSync(path)));
}

function refuseOutside(project: string, target: string): void {
  if (!isSameOrAbove(realpathSync(project), target)) throw new UserError(CLIENT_FILE.leadsOut(target));
}

/** The content of the file; undefined if it does not exist. */
function readEarlier({ path, real }: Target): Buffer | undefined {
  if (!existsSync(path)) return undefined;
  const file = openSync(path, constants.O_RDONLY | (real === undefined ? 0 : constants.O_NOFOLLOW));
  try {
    return readFileSync(file);
  } finally {
    closeSync(file);
  }
}

/** @throws {CommandError} if the work fails; the error names the file */
function withFileErrors<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof UserError) && !(error instanceof Error && "code" in error)) throw error;
    throw texts.clientFileUnchanged(file, error);
  }
}

/** @throws {CommandError} if the directory does not exist: the user may have misspelled it */
function requireDirectory({ directory, variable }: Place): void {
  if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory())
    throw texts.noClientDirectory(directory, variable);
}

/**
 * Replaces the file, or the file to which a symbolic link leads. Only its user can read the new file: it may contain a token.
 * @param earlier the earlier file's content
 * @returns the path of the copy of the earlier file, if there was one
 */
function write({ path, real }: Target, text: string, earlier: Buffer | undefined): string | undefined {
  makeDirectories(dirname(path));
  const isThere = existsSync(path);
  if (!isThere && lstatSync(path, { throwIfNoEntry: false }) !== undefined)
    throw new UserError(CLIENT_FILE.brokenLink);
  const target = isThere && real === undefined ? realpathSync(path) : path;
  // Renaming replaces even a read-only file, and accessSync lets root write every file. So the mode is checked, too.
  if (isThere && (statSync(target).mode & 0o222) === 0) throw new UserError(CLIENT_FILE.readOnly);
  if (isThere) accessSync(target, constants.W_OK);
  const copy = earlier && keepCopy(target, earlier);
  replaceFile(target, text);
  return copy && join(dirname(real ?? target), basename(copy));
}
