import { setTimeout as pause } from "node:timers/promises";
import { Option } from "@commander-js/extra-typings";
import { EventSourceParserStream } from "eventsource-parser/stream";
import { z } from "zod";
import { PROGRAM_LANGUAGES } from "../../src/shared/languages.ts";
import { MAX_RUN_SECONDS } from "../../src/shared/run-seconds.ts";
import { serverCommand, textFrom, wholeNumber } from "../define-command.ts";
import { CommandError } from "../exit.ts";
import { follow, Interrupt } from "../follow-run.ts";
import { http, Server } from "../server-calls.ts";
import { json, line, note, oneLine, printOutput, Progress } from "../print.ts";
import { type ServerAddress, serverAddress } from "../server-address.ts";
import { imageDirectory, reportCode } from "./code.ts";
import { askDisconnected, NO_REASON, takesNoQuestions } from "./texts.ts";
import { STOPPING } from "../texts.ts";

/** The longest time that a timer accepts, in milliseconds. */
const MAX_WAIT_MS = 2 ** 31 - 1;

const eventData = z.object({
  taskId: z.string().optional(),
  text: z.string().optional(),
  error: z.string().nullish(),
  notice: z.string().optional(),
});

export const ask = serverCommand(
  "ask",
  "have a model write a program that answers a question, and run the program; Ctrl-C stops it",
  [
    "ask 'Which day of the week was 29 February 2000?'",
    "ask --sandbox data --save charts 'Plot the sales of each month in sales.csv'",
    "echo 'How many primes are below a million?' | sandbox-mcp ask --language typescript --json",
  ],
)
  .argument("[question]", "the question; - reads standard input")
  .option("--file <path>", "read the question from a file")
  .addOption(
    new Option("--language <name>", "the language of the program; without it, the model chooses").choices(
      PROGRAM_LANGUAGES,
    ),
  )
  .option(
    "--sandbox <name>",
    "run the program in this sandbox; without it, in a new one that is deleted afterwards",
  )
  .option("--model <name>", "the model that writes the program; without it, the server's default")
  .option(
    "--timeout <seconds>",
    "stop after this time, which includes writing the program",
    wholeNumber(1, MAX_RUN_SECONDS),
    300,
  )
  .option("--wait <seconds>", "stop waiting after this time; the run continues", wholeNumber(0))
  .option("--detach", "print the id of the run and do not wait")
  .option("--save <directory>", "save the images of the result in this directory")
  .action(async (argument, options) => {
    const question = await textFrom("question", argument, options);
    const directory = imageDirectory(options.save, options);
    const address = serverAddress(options);
    const { language, sandbox, model, timeout, wait } = options;
    const deadline = wait === undefined ? Infinity : Date.now() + wait * 1000;
    const server = await Server.connect(address);
    const body = { question, language, sandbox, model, timeout: timeout * 1000 };
    const id = await writeProgram(server, body, {
      prints: !options.json && !options.detach,
      waitMs: options.detach ? 0 : deadline - Date.now(),
    });
    const first = await server.call("get_result", { id, wait_seconds: 0 });
    if (options.detach) {
      if (options.json) json(true, first.data);
      else line(id);
    } else {
      const end = await follow(server, first, {
        prints: !options.json,
        onInterrupt: "cancel",
        ...(wait === undefined ? {} : { waitSeconds: Math.max(0, deadline - Date.now()) / 1000 }),
        label: "The program runs",
        isFresh: sandbox === undefined,
      });
      reportCode(end, directory, options.json === true);
    }
    await server.close();
  });

/**
 * Sends the question, and prints the program. Returns when the program is written, or the wait or the connection ends.
 * @returns the run's id
 */
async function writeProgram(
  server: Server,
  body: object,
  { prints, waitMs }: { prints: boolean; waitMs: number },
): Promise<string> {
  const interrupt = new Interrupt();
  const progress = new Progress("The model writes", prints);
  const waitEnd = pause(Math.min(Math.max(0, waitMs), MAX_WAIT_MS), undefined, { ref: false });
  let last = "\n";
  let events: Events | undefined;
  try {
    events = await eventsOf(server.address, body);
    const { taskId: id, notice } = (await nextEvent(events)) ?? {};
    if (id === undefined) throw askDisconnected();
    if (notice !== undefined) note(notice);
    for (;;) {
      const event = await Promise.race([interrupt.race(nextEvent(events)), waitEnd]);
      if (interrupt.signal.aborted) {
        note(STOPPING);
        await server.call("cancel_run", { id });
      }
      if (event?.name !== "code") return id;
      if (!prints) continue;
      // Progress is not drawn again, because it would erase an unfinished line of the printed program.
      progress.stop();
      last = event.text ?? "";
      printOutput(process.stderr, last);
    }
  } finally {
    progress.stop();
    interrupt.end();
    if (!last.endsWith("\n")) process.stderr.write("\n");
    void events?.cancel().catch(() => undefined);
  }
}

type Events = Awaited<ReturnType<typeof eventsOf>>;

/** @returns undefined if the connection ended; the run continues @throws {CommandError} for an error event of the server */
async function nextEvent(events: Events) {
  const { value } = await events.read().catch(() => ({ value: undefined }));
  if (value === undefined) return undefined;
  const data = eventData.parse(JSON.parse(value.data));
  if (value.event === "error")
    throw new CommandError("refusedByServer", data.error ? oneLine(data.error) : NO_REASON);
  return { name: value.event, ...data };
}

async function eventsOf(address: ServerAddress, body: object) {
  const response = await http(address, "/execute", {
    method: "POST",
    headers: { accept: "text/event-stream", "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (response.body === null || !response.headers.get("content-type")?.startsWith("text/event-stream"))
    throw takesNoQuestions(address.url);
  return response.body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream())
    .getReader();
}
