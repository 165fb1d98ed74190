/** Calls the commands of `container/task.sh` in shells of the sandbox, over the SDK's sessions. */
import { answerOf } from "./answer.ts";
import { isRecord } from "../shared/is-record.ts";
import { within } from "../shared/within.ts";
import {
  SHELL_KILLED,
  answered,
  damaged,
  didNotStart,
  exhausted,
  isGone,
  saysExhausted,
  sdkCode,
} from "../shared/errors.ts";
import { Shells } from "./shells.ts";

/**
 * What of the SDK's class this needs. Its client and not its `exec`: that one logs the beginning of each line that
 * fails and the whole of some errors, which repeat the line, and ours hold the user's commands, variables and paths.
 */
export interface ShellHost {
  readonly client: {
    readonly commands: { execute(command: string, sessionID: string): Promise<Executed> };
  };
}

interface Executed {
  stdout: string;
  stderr: string;
}

function isExecuted(answer: unknown): boolean {
  return isRecord(answer) && typeof answer.stdout === "string" && typeof answer.stderr === "string";
}

export interface Reply {
  /** The words of the answer's first line. */
  words: string[];
  /** What follows the first line. */
  rest: string;
  stderr: string;
}

/** The shell for short helpers: never the one that a long one is at work in. */
const CONTROL = "control";

const MISSING = /\/opt\/sandbox-mcp\/\S+: No such file/;

/** How often a call is made whose shell is killed, or whose connection breaks, each time. */
const ATTEMPTS = 4;

/** How long a shell that nobody uses may take to end, milliseconds. */
const END_MS = 5000;

/** How long a shell may take for a call, milliseconds: a helper can have a big directory to look through. */
const ANSWER_MS = 60_000;

/** Where the names of the shells that are alive are remembered, in the actor's storage. */
const LIVE = "shells";

export interface Surroundings {
  kv: Pick<SyncKvStorage, "get" | "put">;
  running(): boolean;
  /** Whether the container is there although a call to it was interrupted. */
  outlived(): Promise<boolean>;
}

export interface CallOptions {
  /** A shell of its own, for what takes long. */
  session?: string;
  /** Text for standard input, which must not hold NUL; a line break is added. */
  input?: string;
  /** How long it may take, milliseconds. */
  answerMs?: number;
  /** It may answer nothing; of any other call that is the answer of a helper that was changed. */
  silent?: boolean;
}

export class Shell {
  readonly #host: ShellHost;
  readonly #surroundings: Surroundings;
  readonly #shells: Shells;

  constructor(host: ShellHost, surroundings: Surroundings) {
    const { kv, running } = surroundings;
    this.#host = host;
    this.#surroundings = surroundings;
    this.#shells = new Shells(
      {
        // A call would start another container.
        end: async (name) => running() && within(END_MS, host.client.commands.execute("builtin exit", name)),
        remember: (names) => kv.put(LIVE, names),
      },
      running() ? kv.get<string[]>(LIVE) : [],
    );
  }

  /** The container is gone, and every shell with it. */
  forget(): void {
    this.#shells.forget();
  }

  /**
   * Calls a script and reads its answer. User code can kill any shell of its sandbox: the SDK then answers
   * SESSION_TERMINATED once, and the next call finds a fresh shell.
   * @throws {ToolError} `no_answer` when the sandbox hangs, `exhausted` when it can start no process; other errors are the SDK's
   */
  async call(
    line: string,
    { session, input, answerMs = ANSWER_MS, silent = false }: CallOptions = {},
  ): Promise<Reply> {
    const command = input === undefined ? line : withInput(line, input);
    const shell = session === undefined ? CONTROL : `shell-${session}`;
    const result = await this.#shells.use(shell, () => this.#exec(command, shell, answerMs));
    const end = result.stdout.indexOf("\n");
    const first = end < 0 ? result.stdout : result.stdout.slice(0, end);
    const words = first.split(" ").filter(Boolean);
    // The shell drops the rest of a line that it can start no process for; standard error is the script's own.
    if (saysExhausted(result.stderr)) throw exhausted();
    if (words.length === 0 && (!silent || MISSING.test(result.stderr)))
      throw damaged("/opt/sandbox-mcp, where the server keeps its programs, was changed");
    return {
      words,
      rest: end < 0 ? "" : result.stdout.slice(end + 1),
      stderr: result.stderr,
    };
  }

  async #exec(command: string, shell: string, answerMs: number): Promise<Executed> {
    for (let attempt = 1; ; attempt++) {
      try {
        const call = this.#host.client.commands.execute(command, shell);
        return await answered(answerMs, answerOf(call, isExecuted));
      } catch (error) {
        if (attempt === ATTEMPTS) throw error;
        // A container that ends in the moment it is called has done nothing: another one is started for the next call.
        if (didNotStart(error)) continue;
        if (sdkCode(error) !== SHELL_KILLED && !(isGone(error) && (await this.#surroundings.outlived())))
          throw error;
      }
    }
  }
}

/** The bytes of an answer whose rest is base64. */
export function replyBytes(reply: Reply): Uint8Array {
  try {
    return Uint8Array.fromBase64(reply.rest);
  } catch {
    throw damaged("its programs for files (base64, tail, head) do not do what they should");
  }
}

/** More bytes, lines or files than any sandbox has. */
const MAX_COUNT = 2 ** 50;

/** A count in an answer; undefined for what is none. */
export function countOf(word: string | undefined): number | undefined {
  if (word === undefined || !/^\d{1,16}$/.test(word)) return undefined;
  const count = Number(word);
  return count <= MAX_COUNT ? count : undefined;
}

/** `text` as one word of a shell line. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function withInput(line: string, input: string): string {
  // A random word that the text cannot hold.
  const word = `SBX_${crypto.randomUUID().replaceAll("-", "")}`;
  return `{ ${line}; } <<'${word}'\n${input}\n${word}`;
}
