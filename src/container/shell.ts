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
 * The part of the SDK's class that this needs. It uses the client instead of `exec`, which logs the beginning of each failed
 * line and the whole of some errors that repeat the line: ours hold the user's commands, variables and paths.
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

/** The shell for short calls; long ones have shells of their own. */
const CONTROL = "control";

const MISSING = /\/opt\/sandbox-mcp\/\S+: No such file/;

/** Attempts at a call whose shell is killed or whose connection breaks every time. */
const ATTEMPTS = 4;

/** How long an unused shell may take to end, milliseconds. */
const END_MS = 5000;

/** How long a call may take, milliseconds: it may have to search a large directory. */
const ANSWER_MS = 60_000;

/** Storage key of the names of the shells that are alive. */
const LIVE = "shells";

export interface Surroundings {
  kv: Pick<SyncKvStorage, "get" | "put">;
  running(): boolean;
  /** Whether the container still runs after an interrupted call. */
  outlived(): Promise<boolean>;
}

export interface CallOptions {
  /** Name of a shell for this call alone, for a call that takes long. */
  session?: string;
  /** Text for standard input, which must not hold NUL; a line break is added. */
  input?: string;
  /** How long the call may take, milliseconds. */
  answerMs?: number;
  /** Whether an empty answer is valid. From any other call it shows that the script was changed. */
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
        // A call would start a new container.
        end: async (name) => running() && within(END_MS, host.client.commands.execute("builtin exit", name)),
        remember: (names) => kv.put(LIVE, names),
      },
      running() ? kv.get<string[]>(LIVE) : [],
    );
  }

  /** The container has gone with every shell. */
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
    // A shell that cannot start a process drops the rest of the line, so the script writes to its own standard error.
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
        // The container ended before the call reached it, so nothing was done and the next attempt starts another.
        if (didNotStart(error)) continue;
        if (sdkCode(error) !== SHELL_KILLED && !(isGone(error) && (await this.#surroundings.outlived())))
          throw error;
      }
    }
  }
}

/** The decoded bytes of an answer that is base64 after its first line. */
export function replyBytes(reply: Reply): Uint8Array {
  try {
    return Uint8Array.fromBase64(reply.rest);
  } catch {
    throw damaged("its programs for files (base64, tail, head) do not do what they should");
  }
}

/** More bytes, lines or files than any sandbox has. */
const MAX_COUNT = 2 ** 50;

/** A count in an answer; undefined when the text is not one. */
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
