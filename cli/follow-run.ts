/** Follows a run to its end, and prints its output as it arrives. */
import type { RunData } from "../client/follow.ts";
import { EXIT, isOwnStatus, isSecondCtrlC, statusOf } from "./exit.ts";
import type { Answer, Server } from "./server-calls.ts";
import { printOutput, Progress } from "./print.ts";
import { exitCodeReplaced, returnTo, STOPPING } from "./texts.ts";

/** A run of any kind. Only tasks have `success`. */
type Run = RunData & { success?: boolean };

export interface FollowedRun {
  run: Run;
  content: Answer["content"];
  status: number;
}

interface FollowOptions {
  /** Whether to print output; not for `--json`. */
  prints: boolean;
  /** Whether all output goes to standard error, like an agent's log. Then only the result goes to standard output. */
  outputToStderr?: boolean;
  /** Whether Ctrl-C stops the run, or only stops following it. */
  onInterrupt: "cancel" | "detach";
  /** Seconds to wait for the run; no limit if undefined. */
  waitSeconds?: number;
  /** Whether the sandbox was made for this run and ends with it. Then notices are printed only if the run does not succeed. */
  isFresh?: boolean;
  label: string;
}

/** Follows a run from the answer of its first call to its end, or for `waitSeconds`. Prints each notice of the server once. */
export async function follow(server: Server, first: Answer, options: FollowOptions): Promise<FollowedRun> {
  const started = first.data as Run;
  const { id } = started;
  const progress = new Progress(options.label, started.state === "running");
  const notices: string[] = [];
  const printNotice = (notice: string | undefined, isReason = false) => {
    if (options.prints && options.isFresh && !isReason) return;
    if (!notice || notices.some((message) => message.includes(notice))) return;
    notices.push(notice);
    if (options.prints) progress.note(notice);
  };
  const finish = (result: Answer): FollowedRun => {
    const { run, ...rest } = toFollowedRun(result);
    printNotice(run.notice, run.state !== "succeeded");
    if (options.prints && run.state === "failed" && isOwnStatus(run.exit_code))
      progress.note(exitCodeReplaced(run.exit_code, rest.status));
    return { run: { ...run, notice: notices.join(" ") || undefined }, ...rest };
  };
  const streams = {
    stdout: options.outputToStderr ? process.stderr : process.stdout,
    stderr: process.stderr,
  };
  const show = (stream: keyof typeof streams, text: string) => {
    if (!options.prints) return;
    progress.clear();
    printOutput(streams[stream], text);
    if (streams[stream].isTTY) progress.trackOutput(text);
  };
  const interrupt = new Interrupt(() => {
    progress.stop();
    if (options.onInterrupt === "cancel") progress.note(STOPPING);
  });
  const { signal } = interrupt;
  try {
    const last = await server
      .follow(first, {
        onOutput: ({ stream, text }) => show(stream, text),
        onNotice: (notice) => printNotice(notice),
        maxOutput: 0,
        deadline: options.waitSeconds === undefined ? undefined : Date.now() + options.waitSeconds * 1000,
        ...(options.onInterrupt === "cancel" ? { signal } : { detach: signal }),
      })
      .catch((error: unknown) => {
        if (!signal.aborted) throw error;
        return server.readResult({ id, wait_seconds: 0 });
      });
    progress.stop();
    const hasDetached = signal.aborted && options.onInterrupt === "detach";
    if (hasDetached || last.data.state === "running") progress.note(...returnTo(id));
    const end = finish(last);
    return hasDetached ? { ...end, status: statusOf("cancelled") } : end;
  } finally {
    progress.stop();
    interrupt.end();
  }
}

export function toFollowedRun({ data, content }: Answer): FollowedRun {
  const run = data as Run;
  const status = run.success === false && run.state === "succeeded" ? 1 : statusOf(run.state, run.exit_code);
  return { run, content, status };
}

/** Handles Ctrl-C. A second Ctrl-C ends this process. */
export class Interrupt {
  readonly #controller = new AbortController();
  readonly #happened: Promise<undefined>;
  readonly #listener: () => void;

  constructor(onFirst: () => void = () => undefined) {
    const happened = Promise.withResolvers<undefined>();
    this.#happened = happened.promise;
    let at: number | undefined;
    this.#listener = () => {
      if (isSecondCtrlC(at)) process.exit(EXIT.cancelled);
      if (at !== undefined) return;
      at = Date.now();
      onFirst();
      this.#controller.abort();
      happened.resolve(undefined);
    };
    process.on("SIGINT", this.#listener);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
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
