import { Command, type CommandUnknownOpts } from "@commander-js/extra-typings";
import description from "../package.json" with { type: "json" };
import { examplesOf, exampleText } from "./define-command.ts";
import { ask } from "./commands/ask.ts";
import { code } from "./commands/code.ts";
import { command } from "./commands/command.ts";
import { connect } from "./commands/connect.ts";
import { deploy } from "./commands/deploy.ts";
import { diagnose } from "./commands/diagnose.ts";
import { doctor } from "./commands/doctor.ts";
import { execute } from "./commands/execute.ts";
import { files } from "./commands/files.ts";
import { cancel, result } from "./commands/result.ts";
import { runs } from "./commands/runs.ts";
import { token } from "./commands/token.ts";
import { validate } from "./commands/validate.ts";
import { verify } from "./commands/verify.ts";
import { shell } from "./commands/shell.ts";
import { stdio } from "./commands/stdio.ts";
import { watch } from "./commands/watch.ts";
import { sandboxes } from "./commands/sandboxes.ts";

/** `main.ts` handles `start` before it loads this file. This definition is only for the list of commands. */
const start = new Command("start")
  .description("run a server on this machine; `start --help` lists its options")
  .allowUnknownOption();

const COMMANDS: readonly CommandUnknownOpts[] = [
  start,
  stdio,
  connect,
  code,
  command,
  shell,
  execute,
  ask,
  result,
  cancel,
  runs,
  watch,
  sandboxes,
  files,
  token,
  doctor,
  validate,
  deploy,
  verify,
  diagnose,
];

export const program = new Command("sandbox-mcp")
  .description("Linux sandboxes for MCP clients: run the server, use it, connect clients to it.")
  .version(description.version)
  .configureHelp({ showGlobalOptions: false })
  .addHelpText(
    "after",
    `
Which server: --url and --token, else SANDBOX_MCP_URL and SANDBOX_MCP_TOKEN, else the one that runs here.
Exit status: 0 succeeded, 1 failed, 64 wrong usage, 69 no server or no such local file, 70 server error, 75 still running,
77 token refused, 124 timed out, 130 cancelled. Otherwise \`command\`, \`code\`, \`shell\` and \`result\` end with the
program's own status.`,
  );

for (const each of COMMANDS) {
  program.addCommand(each);
  const first = each.commands.flatMap((part) => examplesOf(part).slice(0, 1));
  if (first.length > 0) each.addHelpText("after", exampleText(first));
}

export function everyCommand(from: CommandUnknownOpts = program): CommandUnknownOpts[] {
  return [from, ...from.commands.flatMap((each) => everyCommand(each))];
}

/** The commands with an action, with their full names. */
export function leafCommands(
  of: CommandUnknownOpts = program,
  before = "",
): [name: string, command: CommandUnknownOpts][] {
  return of.commands.flatMap((each): [string, CommandUnknownOpts][] => {
    const name = `${before} ${each.name()}`.trim();
    if (each.name() === start.name()) return [];
    return each.commands.length > 0 ? leafCommands(each, name) : [[name, each]];
  });
}
