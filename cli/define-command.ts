/** How all commands are defined: common options, and examples. */
import { readFileSync } from "node:fs";
import { buffer } from "node:stream/consumers";
import { Command, type CommandUnknownOpts, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { SANDBOX_NAME, SESSION_NAME } from "../src/shared/names.ts";
import { CommandError } from "./exit.ts";
import { DEFAULT_PORT } from "./options.ts";
import { PROGRAM } from "./program-files.ts";
import { openUserPath } from "./linked-paths.ts";
import { type ServerOptions, userPath } from "./server-address.ts";
import { noText, textTwice, unreadable, WRONG_VALUE, wrongSandboxName } from "./texts.ts";

const EXAMPLES = new WeakMap<object, readonly string[]>();

/** @param examples the help prepends `sandbox-mcp `, unless an example contains it */
function plainCommand(name: string, description: string, examples: readonly string[]) {
  const lines = examples.map((each) => (each.includes("sandbox-mcp ") ? each : `sandbox-mcp ${each}`));
  const command = new Command(name)
    .description(description)
    .hook("preAction", (_, chosen) => applySandbox(chosen))
    .addHelpText("after", exampleText(lines));
  EXAMPLES.set(command, lines);
  return command;
}

/**
 * Makes the address's `?sandbox=` the default of `--sandbox`, as for every client.
 * @throws {CommandError} for an invalid name, before anything is sent or written
 */
function applySandbox(command: CommandUnknownOpts): void {
  const name: unknown = command.getOptionValue("sandbox");
  checkSandbox("--sandbox", name);
  const address: unknown = command.getOptionValue("url") ?? process.env.SANDBOX_MCP_URL?.trim();
  if (typeof address !== "string" || !URL.canParse(address)) return;
  const ofAddress = new URL(address).searchParams.get("sandbox");
  checkSandbox("The sandbox of the address", ofAddress);
  if (ofAddress !== null && command.getOptionValueSource("sandbox") === "default")
    command.setOptionValue("sandbox", ofAddress);
}

function checkSandbox(what: string, name: unknown): void {
  if (typeof name === "string" && !SANDBOX_NAME.test(name)) throw wrongSandboxName(what, name);
}

export function exampleText(lines: readonly string[]): string {
  const shown = lines.map((each) => `  $ ${each.replaceAll("sandbox-mcp ", `${PROGRAM} `)}`);
  return `\nExamples:\n${shown.join("\n")}`;
}

export function dataCommand(...definition: Parameters<typeof plainCommand>) {
  return plainCommand(...definition).option("--json", "print one JSON document");
}

export function serverCommand(...definition: Parameters<typeof plainCommand>) {
  return dataCommand(...definition)
    .addOption(urlOption())
    .addOption(tokenOption())
    .addOption(stateOption());
}

/** A command that calls a server and prints the server's own output. @param whyNoJSON a sentence for users of `--json` */
export function bridgeCommand(whyNoJSON: string, ...definition: Parameters<typeof plainCommand>) {
  return plainCommand(...definition)
    .addOption(new Option("--json").hideHelp())
    .hook("preAction", (_, chosen) => {
      if (chosen.getOptionValue("json")) throw new CommandError("usage", whyNoJSON);
    })
    .addOption(urlOption())
    .addOption(tokenOption())
    .addOption(stateOption());
}

export const urlOption = () =>
  new Option("--url <url>", "the server's address (default: SANDBOX_MCP_URL, else the local server)");
export const tokenOption = () =>
  new Option(
    "--token <token>",
    "the token (default: SANDBOX_MCP_TOKEN, which other users of the machine cannot see)",
  );
export const stateOption = () =>
  new Option("--state-dir <path>", "state directory of the local server (default: SANDBOX_MCP_STATE_DIR)");

export function examplesOf(command: object): readonly string[] {
  return EXAMPLES.get(command) ?? [];
}

export function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}

export function wholeNumber(least: number, most = Infinity) {
  return (text: string): number => {
    if (/^\d{1,9}$/.test(text) && Number(text) >= least && Number(text) <= most) return Number(text);
    throw new InvalidArgumentError(WRONG_VALUE.wholeNumber(least, most));
  };
}

export function sessionName(text: string): string {
  if (SESSION_NAME.test(text)) return text;
  throw new InvalidArgumentError(WRONG_VALUE.session);
}

export const portOption = () =>
  new Option(
    "--port <number>",
    `port to check (default: the running local server's, else ${DEFAULT_PORT})`,
  ).argParser(portNumber);

function portNumber(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535) return Number(text);
  throw new InvalidArgumentError(WRONG_VALUE.port);
}

/**
 * A command's text: an argument, standard input for `-`, or a file.
 * @throws {CommandError} without text, or with an argument and a file
 */
export async function textFrom(
  what: string,
  argument: string | undefined,
  { file, ...options }: ServerOptions & { file?: string | undefined },
): Promise<string> {
  if (argument !== undefined && file !== undefined) throw textTwice(what);
  const source = file ?? (argument === undefined && !process.stdin.isTTY ? "-" : undefined);
  const text =
    source === "-" || argument === "-"
      ? String(await buffer(process.stdin))
      : source === undefined
        ? argument
        : fileText(source, options);
  if (text === undefined || text.trim() === "") throw noText(what);
  return text;
}

function fileText(path: string, options: ServerOptions): string {
  try {
    return readFileSync(openUserPath(userPath(path), options), "utf8");
  } catch (error) {
    throw error instanceof CommandError ? error : unreadable(path, error);
  }
}
