/** `sandbox-mcp code`: runs a program in a kernel of a sandbox. */
import { mkdirSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import { Option } from "@commander-js/extra-typings";
import { z } from "zod";
import { serverCommand, textFrom, wholeNumber } from "../command.ts";
import { FIRST_WAIT_SECONDS, follow } from "../follow.ts";
import { type Answer, Server } from "../mcp.ts";
import { json, line, note, printed, styled } from "../print.ts";
import { userPath, serverAddress } from "../server.ts";

const LANGUAGES = ["python", "javascript", "typescript"] as const;

const LANGUAGE_OF: Record<string, (typeof LANGUAGES)[number]> = {
  ".py": "python",
  ".js": "javascript",
  ".mjs": "javascript",
  ".cjs": "javascript",
  ".ts": "typescript",
  ".mts": "typescript",
};

/** What a run of code has beside what every run has. */
const codeFields = z.object({
  result: z.string().optional(),
  left_out: z.string().optional(),
  error: z.object({ name: z.string(), message: z.string(), traceback: z.array(z.string()) }).optional(),
});

export const code = serverCommand("code", "run code in a live kernel; variables stay for the next call", [
  "code 'import math; math.pi * 2'",
  "code --file analysis.py --save charts",
  "echo 'console.log(1 + 1)' | sandbox-mcp code --language javascript",
])
  .argument("[code]", "the program; - for standard input")
  .option("--file <path>", "read the program from a file, whose ending tells the language")
  .addOption(new Option("--language <name>", "python unless a file says otherwise").choices(LANGUAGES))
  .option("--sandbox <name>", "the sandbox", "default")
  .option("--context <name>", "which kernel of that language", "default")
  .option("--timeout <seconds>", "stop it after so long", wholeNumber(1), 120)
  .option("--save <directory>", "write the images of the result there")
  .action(async (argument, options) => {
    const source = await textFrom("code", argument, options.file);
    const language = options.language ?? LANGUAGE_OF[extname(options.file ?? "")] ?? "python";
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
    const { run, content, status } = await follow(server, first, {
      prints: !options.json,
      onInterrupt: "cancel",
      label: `${language} in ${sandbox}`,
    });
    const images = options.save === undefined ? undefined : saveImages(content, userPath(options.save));
    if (options.json) json(status === 0, { ...run, images });
    else printResult(run, content, images);
    process.exitCode = status;
    await server.close();
  });

/** Prints the value of the last expression, the exception, and where images are. */
export function printResult(
  run: object,
  content: Answer["content"],
  images: readonly string[] | undefined,
): void {
  const { result, left_out, error } = codeFields.parse(run);
  if (result) printed(process.stdout, `${result}\n`);
  if (left_out) note(left_out);
  if (error) {
    const text = error.traceback.join("\n") || `${error.name}: ${error.message}`;
    printed(process.stderr, `${styled("red", text, process.stderr)}\n`);
  }
  for (const path of images ?? []) line(path);
  const shown = content.filter(({ type }) => type === "image");
  if (images === undefined && shown.length > 0)
    note(`Images: ${shown.length}. --save <directory> writes them.`);
}

/** Writes the images as `image-1.png` and so on. @returns their paths */
export function saveImages(content: Answer["content"], directory: string): string[] {
  mkdirSync(directory, { recursive: true });
  const images = content.filter((block) => block.type === "image");
  return images.map(({ data, mimeType }, index) => {
    const ending = { "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp" }[mimeType] ?? "png";
    const path = join(directory, `image-${index + 1}.${ending}`);
    writeFileSync(path, Buffer.from(data, "base64"));
    return path;
  });
}
