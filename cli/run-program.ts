/** Runs a command line and reports errors. */
import { CommanderError } from "@commander-js/extra-typings";
import { EXIT } from "./exit.ts";
import { failure, failureOf, resetColors } from "./print.ts";
import { everyCommand, leafCommands, program } from "./command-tree.ts";
import { optionTooEarly, takenByNPM } from "./texts.ts";

/** @returns the exit status */
export async function run(words: readonly string[]): Promise<number> {
  for (const each of everyCommand())
    each
      .exitOverride()
      .configureOutput({ outputError: (message, write) => write(withoutArguments(message)) });
  try {
    refuseSwallowed();
    refuseEarly(words);
    await program.parseAsync([...words], { from: "user" });
    return Number(process.exitCode ?? EXIT.succeeded);
  } catch (error) {
    return printError(error, words.includes("--json"));
  } finally {
    resetColors();
  }
}

/** npm's own settings, which a user may have in .npmrc. */
const NPMS_OWN = new Set(["--version", "--yes", "--save", "--force"]);

/** Refuses options that npm stored as its settings because `--` was missing before them. @throws {CommandError} that names them */
function refuseSwallowed(): void {
  const { env } = process;
  if (env.npm_lifecycle_event !== "cli") return;
  const names = new Set(everyCommand().flatMap(({ options }) => options.flatMap(({ long }) => long ?? [])));
  const taken = [...names].filter(
    (name) => env[`npm_config_${name.slice(2).replaceAll("-", "_")}`] !== undefined,
  );
  const swallowed = taken.filter((name) => !NPMS_OWN.has(name));
  if (swallowed.length > 0) throw takenByNPM(swallowed, "npm run cli -- ...");
}

/** @throws {CommandError} for a command's option before the command */
function refuseEarly([first = "", ...rest]: readonly string[]): void {
  const [option = ""] = first.split("=");
  const isOwn = program.options.some(({ long }) => long === option) || option === "--help";
  const owners = isOwn
    ? []
    : leafCommands().filter(([, { options }]) => options.some(({ long }) => long === option));
  if (owners.length === 0) return;
  const [name = "<command>"] = owners.find(([owner]) => rest.includes(owner)) ?? [];
  throw optionTooEarly(option, name);
}

/** Commander repeats unexpected arguments. They may contain a token, and errors go to logs. */
function withoutArguments(message: string): string {
  return message.replace(/^(error: too many arguments .* but got \d+): [^]*/, "$1.\n");
}

function printError(error: unknown, asJSON: boolean): number {
  if (error instanceof CommanderError) {
    // commander has already printed its message.
    if (error.exitCode === 0) return EXIT.succeeded;
    if (asJSON) failure("usage", withoutArguments(error.message).replace(/^error: /, ""), true);
    return EXIT.usage;
  }
  const [kind, message] = failureOf(error);
  failure(kind, message, asJSON);
  return EXIT[kind];
}
