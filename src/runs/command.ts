/** Shell commands in a sandbox, by the wrapper in `container/run.sh`. */
import { type Shell, type Reply, SHELL_KILLED, quote, replyBytes } from "../sandbox/shell.ts";
import { ToolError, sdkCode } from "../sandbox/errors.ts";
import { KeyedQueue } from "./queue.ts";
import { type Shown, NOTHING, SHOWN_BYTES, ends, shown } from "./output.ts";

export interface CommandSpec {
  runID: string;
  command: string;
  /** Whose directory, variables and functions the command starts from and leaves to the next. */
  session: string;
  /** For this command only; the session's own directory where undefined. */
  cwd?: string;
  /** For this command only. */
  env?: Record<string, string>;
  /** From the moment it starts, milliseconds. */
  timeoutMs: number;
}

export interface CommandOutcome {
  end: "exited" | "timeout";
  /** Of the shell: 128 and the signal's number when a signal ended it. */
  exitCode: number;
  stdout: Shown;
  stderr: Shown;
}

/** How long one call into the sandbox waits for a command to end, seconds. */
const WAIT_SECONDS = 1;

/** Finished runs whose files are removed in one call. */
const CLEAN_BATCH = 16;

export class Commands {
  readonly #shell: Shell;
  readonly #queue = new KeyedQueue();
  #finished: string[] = [];

  constructor(shell: Shell) {
    this.#shell = shell;
  }

  /** Runs a command after those queued before it in its session. */
  run(spec: CommandSpec): Promise<CommandOutcome> {
    return this.#queue.run(spec.session, () => this.#run(spec));
  }

  async #run(spec: CommandSpec): Promise<CommandOutcome> {
    const deadline = Date.now() + spec.timeoutMs;
    let end: CommandOutcome["end"] = "exited";
    let reply = await this.#start(spec, waitSeconds(deadline));
    while (reply.words[0] === "running") {
      if (end === "exited" && Date.now() >= deadline) {
        end = "timeout";
        await this.#shell.call("run.sh", `sbx_kill ${spec.runID}`);
      }
      const seconds = end === "timeout" ? WAIT_SECONDS : waitSeconds(deadline);
      reply = await this.#wait(spec, seconds);
    }
    const [word, exitCode, outBytes, errBytes] = reply.words;
    if (word === "unable")
      throw new ToolError(
        "no_space",
        "The command could not be started: the sandbox's disk is full.",
        "Delete files with run_code or destroy_sandbox, then run the command again.",
      );
    if (word !== "exited") throw new Error(`unexpected answer of the command wrapper: ${reply.words.join(" ")}`);
    const streams =
      outBytes === undefined
        ? await this.#ends(spec.runID)
        : [content(reply.rest, Number(outBytes)), content(reply.stderr, Number(errBytes))];
    this.#finished.push(spec.runID);
    return { end, exitCode: Number(exitCode), stdout: streams[0] ?? NOTHING, stderr: streams[1] ?? NOTHING };
  }

  async #start(spec: CommandSpec, seconds: number): Promise<Reply> {
    const env = Object.entries(spec.env ?? {}).map(([name, value]) => quote(`${name}=${value}`));
    const only = env.length > 0 || spec.cwd !== undefined ? [quote(spec.cwd ?? ""), ...env] : [];
    const line = ["sbx_start", spec.runID, spec.session, seconds, ...only].join(" ");
    const call = { session: spec.session, input: spec.command, once: true };
    try {
      return await this.#shell.call("run.sh", line, call);
    } catch (error) {
      if (sdkCode(error) !== SHELL_KILLED) throw error;
    }
    // The shell had died before the command, or the command killed it: only in the first case nothing ran yet.
    const reply = await this.#wait(spec, seconds);
    return reply.words[0] === "unknown" ? this.#shell.call("run.sh", line, call) : reply;
  }

  #wait(spec: CommandSpec, seconds: number): Promise<Reply> {
    return this.#shell.call("run.sh", `sbx_wait ${spec.runID} ${seconds}`, { session: spec.session });
  }

  /** Both ends of both streams, for an output that did not come with the answer. */
  async #ends(runID: string): Promise<Shown[]> {
    const { words } = await this.#shell.call("run.sh", `sbx_size ${runID}`);
    return Promise.all(
      (["out", "err"] as const).map(async (stream, index) => {
        const size = Number(words[index] ?? 0);
        if (size <= 2 * SHOWN_BYTES) {
          const text = new TextDecoder().decode(await this.#read(runID, stream, 0, size));
          return shown(text, size);
        }
        const first = await this.#read(runID, stream, 0, SHOWN_BYTES);
        const last = await this.#read(runID, stream, size - SHOWN_BYTES, SHOWN_BYTES);
        return ends(first, last, size);
      }),
    );
  }

  async #read(runID: string, stream: "out" | "err", offset: number, length: number): Promise<Uint8Array> {
    const line = `printf 'data\\n'; sbx_read ${runID} ${stream} ${offset} ${length}`;
    return replyBytes(await this.#shell.call("run.sh", line));
  }

  /** Removes the files of finished runs once there are enough of them to be worth a call. Not on a caller's path. */
  async clean(): Promise<void> {
    if (this.#finished.length < CLEAN_BATCH) return;
    const finished = this.#finished;
    this.#finished = [];
    await this.#shell.call("run.sh", `sbx_clean ${finished.join(" ")}`);
  }
}

/** How long the next call may wait: as long as any, but not past the deadline. */
function waitSeconds(deadline: number): number {
  return Math.min(WAIT_SECONDS, Math.max(0.001, (deadline - Date.now()) / 1000));
}

/** A whole output as it came with the answer: ended by a dot of ours, its size in bytes known. */
function content(text: string, bytes: number): Shown {
  return shown(text.slice(0, text.lastIndexOf(".")), bytes);
}
