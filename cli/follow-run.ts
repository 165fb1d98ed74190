/** Follows a run: its output as it comes, then its end. */
import { z } from "zod";
import { FIRST_WAIT_SECONDS, type ReadInput } from "../client/runs.ts";
import { CommandError, EXIT, isOwnStatus, statusOf } from "./exit.ts";
import { type Answer, type Server, WAIT_SECONDS } from "./mcp.ts";
import { note, printed, Progress } from "./print.ts";
import { exitCodeReplaced, READING_AGAIN, returnTo, runDisconnected, STOPPING } from "./texts.ts";

export const pageSchema = z.object({
  state: z.string(),
  log: z.array(z.object({ stream: z.enum(["stdout", "stderr"]), text: z.string() })),
  next_cursor: z.number(),
  log_bytes: z.number(),
  notice: z.string().optional(),
});

/** A run of any kind, as far as the command line reads it. */
const runSchema = z.looseObject({
  id: z.string(),
  state: z.string(),
  exit_code: z.number().optional(),
  stdout: z.string().optional(),
  stderr: z.string().optional(),
  success: z.boolean().optional(),
  notice: z.string().optional(),
  next: z.string().optional(),
});

export type Run = z.infer<typeof runSchema>;

export interface FollowedRun {
  run: Run;
  content: Answer["content"];
  status: number;
}

export { FIRST_WAIT_SECONDS };

export interface FollowOptions {
  /** Whether to print output; not for `--json`. */
  prints: boolean;
  /** Whether the output goes next to the result, as for an agent's log. */
  isBeside?: boolean;
  /** What Ctrl-C does: stops the run, or leaves it. */
  onInterrupt: "cancel" | "leave";
  /** Seconds to wait for the run; no limit if undefined. */
  waitSeconds?: number;
  /** Whether the sandbox was made for this run and ends with it. Then only the reason for a missing result is printed. */
  isFresh?: boolean;
  label: string;
}

/**
 * Follows a run to its end, or for `waitSeconds`. Prints the server's notices, each once, next to the output; without output,
 * the run has them all.
 * @param first the result of the starting call
 */
export async function follow(server: Server, first: Answer, options: FollowOptions): Promise<FollowedRun> {
  const started = runSchema.parse(first.data);
  const { id } = started;
  const progress = new Progress(options.label, started.state === "running");
  const notices: string[] = [];
  const printNotice = (notice: string | undefined, isReason = false) => {
    if (options.prints && options.isFresh && !isReason) return;
    if (!notice || notices.some((message) => message.includes(notice))) return;
    notices.push(notice);
    if (options.prints) progress.note(notice);
  };
  const end = (result: Answer): FollowedRun => {
    const { run, ...rest } = followed(result);
    printNotice(run.notice, run.state !== "succeeded");
    if (options.prints && run.state === "failed" && isOwnStatus(run.exit_code))
      progress.note(exitCodeReplaced(run.exit_code, rest.status));
    return { run: { ...run, notice: notices.join(" ") || undefined }, ...rest };
  };
  const streams = { stdout: options.isBeside ? process.stderr : process.stdout, stderr: process.stderr };
  const show = (stream: keyof typeof streams, text: string) => {
    if (!options.prints) return;
    progress.clear();
    printed(streams[stream], text);
    if (streams[stream].isTTY) progress.printed(text);
  };
  const isShort = started.state !== "running" && started.next === undefined;
  if (isShort && !(started.stdout && started.stderr)) {
    show("stdout", started.stdout ?? "");
    show("stderr", started.stderr ?? "");
    return end(first);
  }
  const deadline = options.waitSeconds === undefined ? Infinity : Date.now() + options.waitSeconds * 1000;
  const interrupt = new Interrupt();
  try {
    printNotice(started.notice);
    let cursor = 0;
    for (;;) {
      const wait = Math.max(0, Math.min(WAIT_SECONDS, (deadline - Date.now()) / 1000));
      const page = await interrupt.race(reading(server, { id, cursor, wait_seconds: wait }));
      if (page === undefined) {
        progress.stop();
        if (options.onInterrupt === "leave") {
          progress.note(...returnTo(id));
          return { ...end(await current(server, id)), status: statusOf("cancelled") };
        }
        progress.note(STOPPING);
        await server.call("cancel_run", { id });
        break;
      }
      const { state, log, next_cursor, log_bytes, notice } = pageSchema.parse(page.data);
      for (const { stream, text } of log) show(stream, text);
      printNotice(notice);
      cursor = next_cursor;
      if (state !== "running" && cursor >= log_bytes) break;
      if (state === "running" && Date.now() >= deadline) {
        progress.stop();
        progress.note(...returnTo(id));
        break;
      }
    }
    progress.stop();
    return end(await current(server, id));
  } finally {
    progress.stop();
    interrupt.end();
  }
}

function current(server: Server, id: string): Promise<Answer> {
  return reading(server, { id, wait_seconds: 0 });
}

/** Calls get_result, which may be repeated. @throws {CommandError} that says how to return to the run */
export async function reading(server: Server, input: ReadInput): Promise<Answer> {
  try {
    return await server.reading(input, () => note(READING_AGAIN));
  } catch (error) {
    if (!(error instanceof CommandError) || error.kind !== "unavailable") throw error;
    throw runDisconnected(error.message, input.id);
  }
}

export function followed({ data, content }: Answer): FollowedRun {
  const run = runSchema.parse(data);
  const status = run.success === false && run.state === "succeeded" ? 1 : statusOf(run.state, run.exit_code);
  return { run, content, status };
}

/** For one Ctrl-C, the terminal and npm each send a signal, milliseconds apart. */
const ONE_CTRL_C_MS = 500;

/** Handles Ctrl-C. A second one ends the process as usual. */
export class Interrupt {
  readonly #happened: Promise<undefined>;
  #listener: () => void = () => undefined;
  hasHappened = false;

  constructor() {
    this.#happened = new Promise((resolve) => {
      let at = 0;
      this.#listener = () => {
        at ||= Date.now();
        this.hasHappened = true;
        if (Date.now() - at > ONE_CTRL_C_MS) process.exit(EXIT.cancelled);
        resolve(undefined);
      };
      process.on("SIGINT", this.#listener);
    });
  }

  /** The promise's value, or undefined after Ctrl-C. */
  race<T>(promise: Promise<T>): Promise<T | undefined> {
    promise.catch(() => undefined);
    return Promise.race([promise, this.#happened]);
  }

  end(): void {
    process.off("SIGINT", this.#listener);
  }
}
