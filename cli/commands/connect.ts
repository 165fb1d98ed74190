/** `sandbox-mcp connect`: writes a client's configuration. */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline/promises";
import { isDeepStrictEqual } from "node:util";
import { Argument, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import description from "../../package.json" with { type: "json" };
import { entryIn, withEntry } from "../client-file.ts";
import { type ClientKind, CLIENTS, type Endpoint } from "../clients.ts";
import { serverCommand } from "../command.ts";
import { UserError } from "../errors.ts";
import { CommandError } from "../exit.ts";
import { PROGRAM_FILE, programWords } from "../places.ts";
import { json, line, note } from "../print.ts";
import { readRunning } from "../running.ts";
import {
  userPath,
  serverAddress,
  type ServerAddress,
  type ServerOptions,
  stateDirectory,
  VARIABLES_FILE,
} from "../server.ts";

export const connect = serverCommand(
  "connect",
  "write a client's configuration, keeping a copy of the file; an entry that is there is replaced only after a question",
  ["connect claude-code", "connect vscode --project .", "connect claude-desktop --print"],
)
  .addArgument(new Argument("<client>", "the client").choices(CLIENTS.map(({ name }) => name)))
  .option("--project <directory>", "for the project in this directory only, where the client has such a file")
  .option("--name <name>", "the name that the server has in the client", serverName, "sandbox")
  .option("--sandbox <name>", "the sandbox of calls that name none")
  .addOption(
    new Option("--transport <kind>", "http, else a process that speaks for the server").choices([
      "http",
      "stdio",
    ]),
  )
  .option("--print", "print what would be written, and write nothing")
  .option("--yes", "replace an entry without asking")
  .action(async (chosen, { project, name, sandbox, transport, print, yes, ...options }) => {
    const client = CLIENTS.find((each) => each.name === chosen) as ClientKind;
    const http = transport === undefined ? client.speaksHTTP : transport === "http";
    if (http && !client.speaksHTTP)
      throw new CommandError("usage", `${client.title} sends no header of its own: use --transport stdio.`);
    const entry = client.entry(
      http ? overHTTP(serverAddress(options), sandbox) : asProcess(addressIfAny(options), sandbox, options),
    );
    const file = fileOf(client, project);
    if (print) {
      const shown = withEntry(client, "", name, entry);
      if (options.json) json(true, { client: chosen, file, entry, written: false });
      else line(`${file}:\n${shown.trimEnd()}`);
      return;
    }
    const { text, before } = readBefore(client, file, name);
    const after = onFile(file, () => withEntry(client, text, name, entry));
    if (isDeepStrictEqual(before, JSON.parse(JSON.stringify(entry)))) {
      if (options.json) json(true, { client: chosen, file, written: false });
      else line(`${client.title} is connected already: ${file}`);
      return;
    }
    if (before !== undefined && !yes) await confirm(`${file} has a server "${name}" already. Replace it?`);
    const copy = write(file, after);
    if (options.json) return json(true, { client: chosen, file, copy, written: true });
    line(`${client.title}: ${file}`);
    if (copy !== undefined) note(`The file as it was: ${copy}`);
    if (project !== undefined && http) note("It holds the token: keep it out of commits.");
    note(client.next);
  });

/** A name that every client takes: they make the names of tools of it, where only these characters may be. */
function serverName(text: string): string {
  if (/^[\w-]{1,64}$/.test(text)) return text;
  throw new InvalidArgumentError("It must be 1 to 64 of A-Z, a-z, 0-9, - and _.");
}

function overHTTP({ url, token }: ServerAddress, sandbox: string | undefined): Endpoint {
  const own = new URL(url);
  if (sandbox !== undefined) own.searchParams.set("sandbox", sandbox);
  return { kind: "http", url: own.href, token };
}

/** A bridge starts the local server where none runs; then there is no address yet. */
function addressIfAny(options: ServerOptions): ServerAddress | undefined {
  const isNamed = options.url !== undefined || process.env.SANDBOX_MCP_URL !== undefined;
  const isRunning = readRunning(stateDirectory(options)) !== undefined;
  return isNamed || isRunning ? serverAddress(options) : undefined;
}

/** The bridge. A local server needs no token here: the bridge reads it where it is kept. */
function asProcess(
  address: ServerAddress | undefined,
  sandbox: string | undefined,
  options: ServerOptions,
): Endpoint {
  const isLocal = address?.isLocal ?? true;
  const [command, ...words] = programWords(PROGRAM_FILE, description.version);
  const args = [...words, "stdio"];
  if (sandbox !== undefined) args.push("--sandbox", sandbox);
  if (isLocal) args.push("--state-dir", stateDirectory(options));
  const env: Record<string, string> = {};
  if (address && !isLocal) env.SANDBOX_MCP_URL = address.url;
  if (address && address.tokenSource !== VARIABLES_FILE) env.SANDBOX_MCP_TOKEN = address.token;
  return { kind: "process", command, args, env };
}

function fileOf(client: ClientKind, project: string | undefined): string {
  if (project === undefined)
    return client.file({ platform: process.platform, home: homedir(), env: process.env });
  if (client.projectFile === undefined)
    throw new CommandError(
      "usage",
      `${client.title} has no configuration for a project: leave --project out.`,
    );
  const directory = userPath(project);
  if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory())
    throw new CommandError("unavailable", `${directory} is no directory.`);
  return join(directory, client.projectFile);
}

function readBefore(client: ClientKind, file: string, name: string): { text: string; before: unknown } {
  const text = existsSync(file) ? onFile(file, () => readFileSync(file, "utf8")) : "";
  return { text, before: onFile(file, () => entryIn(client, text, name)) };
}

/** @throws {CommandError} that names the file */
function onFile<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof UserError) && !(error instanceof Error && "code" in error)) throw error;
    throw new CommandError(
      "failed",
      `${file} is left as it is: ${error.message}. --print shows what belongs in it.`,
    );
  }
}

/** @throws {CommandError} unless the user agrees */
async function confirm(question: string): Promise<void> {
  if (!process.stdin.isTTY) throw new CommandError("usage", `${question} Say so with --yes.`);
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await terminal.question(`${question} [y/N] `);
  terminal.close();
  if (!/^y(es)?$/i.test(answer.trim())) throw new CommandError("cancelled", "Nothing was changed.");
}

/**
 * Writes the file as a whole, for its user alone since it may hold a token, and through a symbolic link to it.
 * @returns the copy of what it was; undefined where there was no file
 */
function write(file: string, text: string): string | undefined {
  return onFile(file, () => {
    mkdirSync(dirname(file), { recursive: true });
    const target = existsSync(file) ? realpathSync(file) : file;
    let copy: string | undefined;
    if (existsSync(target)) {
      const time = new Date()
        .toISOString()
        .replace(/\.\d+Z$/, "")
        .replaceAll(":", "-");
      copy = `${target}.${time}.bak`;
      copyFileSync(target, copy);
      chmodSync(copy, 0o600);
    }
    const temporary = `${target}.${process.pid}.tmp`;
    writeFileSync(temporary, text, { mode: 0o600 });
    renameSync(temporary, target);
    return copy;
  });
}
