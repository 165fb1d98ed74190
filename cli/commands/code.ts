import { existsSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import { Option } from "@commander-js/extra-typings";
import { z } from "zod";
import { makeDirectories } from "../make-directories.ts";
import { DEFAULT_LANGUAGE, LANGUAGES, type Language, TRAITS } from "../../src/shared/languages.ts";
import { messageOf } from "../../src/shared/text.ts";
import { MAX_RUN_SECONDS } from "../../src/shared/run-seconds.ts";
import { serverCommand, sessionName, textFrom, wholeNumber } from "../define-command.ts";
import { EXIT } from "../exit.ts";
import { FIRST_WAIT_SECONDS } from "../../client/follow.ts";
import { follow, type FollowedRun } from "../follow-run.ts";
import { openUserDirectory } from "../linked-paths.ts";
import { type Answer, Server } from "../server-calls.ts";
import { withWriteErrors } from "../output-files.ts";
import { failure, json, line, note, printOutput, applyStyle } from "../print.ts";
import { type ServerOptions, userPath, serverAddress } from "../server-address.ts";
import { unsavedImages } from "./texts.ts";

/** The fields of code runs, without the fields that all runs have. */
const codeFields = z.object({
  result: z.string().optional(),
  left_out: z.string().optional(),
  error: z.object({ name: z.string(), message: z.string(), traceback: z.array(z.string()) }).optional(),
});

export const code = serverCommand(
  "code",
  "run code in a live kernel that keeps its variables for the next call",
  [
    "code 'import math; math.pi * 2'",
    "code --file analysis.py --save charts",
    "echo 'console.log(1 + 1)' | sandbox-mcp code --language javascript",
  ],
)
  .argument("[code]", "the code; - reads standard input")
  .option("--file <path>", "read the code from a file; its extension gives the language")
  .addOption(
    new Option(
      "--language <name>",
      `the language (default: that of the file's extension, else ${DEFAULT_LANGUAGE})`,
    ).choices(LANGUAGES),
  )
  .option("--sandbox <name>", "the sandbox", "default")
  .option("--context <name>", "the kernel of that language", sessionName, "default")
  .option("--timeout <seconds>", "stop the run after this time", wholeNumber(1, MAX_RUN_SECONDS), 120)
  .option("--save <directory>", "save the images of the result in this directory")
  .action(async (argument, options) => {
    const source = await textFrom("code", argument, options);
    const language = options.language ?? languageOf(options.file) ?? DEFAULT_LANGUAGE;
    const directory = imageDirectory(options.save, options);
    const server = await Server.connect(serverAddress(options));
    const { sandbox, context, timeout } = options;
    const first = await server.call("run_code", {
      code: source,
      language,
      sandbox,
      context,
      timeout_seconds: timeout,
      wait_seconds: FIRST_WAIT_SECONDS,
    });
    const end = await follow(server, first, {
      prints: !options.json,
      onInterrupt: "cancel",
      label: `${language} in ${sandbox}`,
    });
    reportCode(end, directory, options.json === true);
    await server.close();
  });

/** The directory of `--save`. `at` is a path through the open directory, because code may replace it with a link during the run. */
interface ImageDirectory {
  path: string;
  at: string;
}

/** Creates the directory of `--save` before anything runs: an error after the run would lose the result. */
export function imageDirectory(
  given: string | undefined,
  options: ServerOptions,
): ImageDirectory | undefined {
  if (given === undefined) return undefined;
  const path = userPath(given);
  withWriteErrors(path, () => makeDirectories(path));
  return { path, at: openUserDirectory(path, options) };
}

/**
 * Prints how a code run ended, and writes its images. The exit status is the run's. If the run succeeded but an image could not
 * be written, the exit status is `unavailable`.
 */
export function reportCode(
  { run, content, status }: FollowedRun,
  directory: ImageDirectory | undefined,
  asJSON: boolean,
): void {
  const { images, unsaved } = directory === undefined ? {} : saveImages(content, directory);
  const exit = status === 0 && unsaved !== undefined ? EXIT.unavailable : status;
  if (asJSON) json(exit === 0, { ...run, images, unsaved });
  else printResult(run, content, images);
  if (unsaved !== undefined && !asJSON) failure("unavailable", unsaved, false);
  process.exitCode = exit;
}

function printResult(run: object, content: Answer["content"], images: readonly string[] | undefined): void {
  const { result, left_out, error } = codeFields.parse(run);
  if (result) printOutput(process.stdout, `${result}\n`);
  if (left_out) note(left_out.replaceAll("\n", " "));
  if (error) {
    const text = error.traceback.join("\n") || `${error.name}: ${error.message}`;
    printOutput(process.stderr, `${applyStyle("red", text, process.stderr)}\n`);
  }
  for (const path of images ?? []) line(path);
  const shown = content.filter(({ type }) => type === "image");
  if (images === undefined && shown.length > 0) note(unsavedImages(shown.length));
}

const ENDINGS = new Map([
  ["image/jpeg", "jpg"],
  ["image/gif", "gif"],
  ["image/webp", "webp"],
]);

/** Writes `image-1.png` and so on, with numbers that no file has yet. @returns their paths, and why one could not be written */
function saveImages(
  content: Answer["content"],
  directory: ImageDirectory,
): { images: string[]; unsaved?: string } {
  const images: string[] = [];
  let number = 0;
  for (const { data, mimeType } of content.filter((block) => block.type === "image")) {
    const ending = ENDINGS.get(mimeType) ?? "png";
    let name: string;
    do name = `image-${++number}.${ending}`;
    while (existsSync(join(directory.at, name)));
    const [path, at] = [join(directory.path, name), join(directory.at, name)];
    try {
      withWriteErrors(path, () => writeFileSync(at, Buffer.from(data, "base64"), { flag: "wx" }));
    } catch (error) {
      return { images, unsaved: messageOf(error) };
    }
    images.push(path);
  }
  return { images };
}

function languageOf(file = ""): Language | undefined {
  return LANGUAGES.find((language) => TRAITS[language].endings.includes(extname(file)));
}
