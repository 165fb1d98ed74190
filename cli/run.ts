/** Runs a command line, and tells what went wrong. */
import { CommanderError } from "@commander-js/extra-typings";
import { UserError } from "./errors.ts";
import { CommandError, EXIT, type ExitName } from "./exit.ts";
import { failure } from "./print.ts";
import { everyCommand, program } from "./program.ts";

/** @returns the exit status */
export async function run(words: readonly string[]): Promise<number> {
  // A reader that has seen enough, such as head, is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit();
    throw error;
  });
  for (const each of everyCommand()) each.exitOverride();
  try {
    await program.parseAsync([...words], { from: "user" });
    return Number(process.exitCode ?? EXIT.succeeded);
  } catch (error) {
    return tell(error, words.includes("--json"));
  }
}

function tell(error: unknown, asJSON: boolean): number {
  if (error instanceof CommanderError) {
    // commander has printed what it has to say.
    if (error.exitCode === 0) return EXIT.succeeded;
    if (asJSON) failure("usage", error.message.replace(/^error: /, ""), true);
    return EXIT.usage;
  }
  const kind: ExitName =
    error instanceof CommandError ? error.kind : error instanceof UserError ? "failed" : "refusedByServer";
  const bug = error instanceof Error ? (error.stack ?? error.message) : String(error);
  failure(kind, error instanceof UserError ? error.message : bug, asJSON);
  return EXIT[kind];
}
