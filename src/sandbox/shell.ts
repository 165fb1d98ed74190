/** Calls the functions of `container/*.sh` in shells of the sandbox, over the SDK's sessions. */
import { SHELL_KILLED, sdkCode } from "./errors.ts";

/** What of the SDK's class this needs. */
export interface ShellHost {
  execWithSessionToken(
    command: string,
    sessionId: string,
  ): Promise<{ stdout: string; stderr: string; exitCode: number }>;
}

export interface Reply {
  /** The words of the answer's first line. */
  words: string[];
  /** What follows the first line. */
  rest: string;
  stderr: string;
}

/** The shell for short helpers: never the one that a command's session waits in. */
const CONTROL = "control";

const SETUP = {
  "run.sh": "sbx_runs",
  "files.sh": "sbx_files",
} as const;

/** How often a call is made whose shell is killed each time. */
const ATTEMPTS = 4;

export class Shell {
  readonly #host: ShellHost;

  constructor(host: ShellHost) {
    this.#host = host;
  }

  /**
   * Calls a shell function and reads its answer. User code can kill any shell of its sandbox: the SDK then answers
   * SESSION_TERMINATED once, and the next call finds a fresh shell.
   * @param session a session of the sandbox, or undefined for the shell of short helpers
   * @param input   text for standard input, which must not hold NUL; a line break is added
   * @param once    throw instead of calling again when the shell was killed, for what must not happen twice
   */
  async call(
    script: keyof typeof SETUP,
    line: string,
    { session, input, once = false }: { session?: string; input?: string; once?: boolean } = {},
  ): Promise<Reply> {
    const setup = `[[ -v ${SETUP[script]} ]] || . /opt/sandbox-mcp/${script}\n`;
    const command = setup + (input === undefined ? line : withInput(line, input));
    const shell = session === undefined ? CONTROL : `shell-${session}`;
    const result = await this.#exec(command, shell, once ? 1 : ATTEMPTS);
    const end = result.stdout.indexOf("\n");
    const first = end < 0 ? result.stdout : result.stdout.slice(0, end);
    return {
      words: first.split(" ").filter(Boolean),
      rest: end < 0 ? "" : result.stdout.slice(end + 1),
      stderr: result.stderr,
    };
  }

  async #exec(
    command: string,
    shell: string,
    attempts: number,
  ): ReturnType<ShellHost["execWithSessionToken"]> {
    try {
      return await this.#host.execWithSessionToken(command, shell);
    } catch (error) {
      if (attempts <= 1 || sdkCode(error) !== SHELL_KILLED) throw error;
      return this.#exec(command, shell, attempts - 1);
    }
  }
}

/** The bytes of an answer whose rest is base64. */
export function replyBytes(reply: Reply): Uint8Array {
  return Uint8Array.fromBase64(reply.rest);
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
