/** Calls of `container/task.sh` for one task, and where it clones to. */
import type { Files } from "../container/files.ts";
import { type ErrorCode, ToolError, unwritable } from "../shared/errors.ts";
import { type CallOptions, type Reply, type Shell, quote, replyBytes } from "../container/shell.ts";

/** The shell session of tasks. Its name is not a valid name of a caller's session. */
export const TASK_SESSION = "_task";

/** How long the script may take for a large workspace, milliseconds. */
const ANSWER_MS = 600_000;

/** Codes of errors that mean that the file does not exist or cannot be read. */
const NO_FILE: ReadonlySet<ErrorCode> = new Set([
  "not_found",
  "is_directory",
  "invalid_argument",
  "permission_denied",
  "file_system",
]);

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class TaskScript {
  readonly #shell: Shell;
  readonly #files: Files;
  readonly #id: string;
  /** The directory of the task's own files. */
  readonly directory: string;

  constructor(shell: Shell, files: Files, id: string) {
    this.#shell = shell;
    this.#files = files;
    this.#id = id;
    this.directory = `/var/lib/sandbox-mcp/tasks/${id}`;
  }

  /** The command that does the task. */
  run(): string {
    return this.#line("run");
  }

  /** Writes the task's files, by name. @throws {ToolError} when they cannot be written */
  async prepare(files: Record<string, string | undefined>): Promise<void> {
    const lines = Object.entries(files).flatMap(([name, content]) =>
      content === undefined ? [] : `${name} ${encoder.encode(content).toBase64()}`,
    );
    const { words, stderr } = await this.#call(this.#line("prepare"), { input: lines.join("\n") });
    if (words[0] === "prepared") return;
    throw unwritable("The task", stderr, "run_command", "leave sandbox out for a fresh one");
  }

  /** Calls one of the script's other commands. */
  call(command: string, ...args: (string | number)[]): Promise<Reply> {
    return this.#call(this.#line(command, ...args), { silent: true });
  }

  /** At most `maxBytes` of a file from `offset` on; nothing when the file does not exist. */
  async read(path: string, offset: number, maxBytes: number): Promise<Uint8Array | undefined> {
    try {
      return (await this.#files.read(path, "bytes", offset, maxBytes, maxBytes)).bytes;
    } catch (error) {
      if (error instanceof ToolError && NO_FILE.has(error.code)) return undefined;
      throw error;
    }
  }

  async clean(): Promise<void> {
    await this.call("clean");
  }

  #line(command: string, ...args: (string | number)[]): string {
    return [
      "bash /opt/sandbox-mcp/task.sh",
      command,
      this.#id,
      ...args.map((arg) => quote(String(arg))),
    ].join(" ");
  }

  #call(line: string, options: CallOptions): Promise<Reply> {
    return this.#shell.call(line, { session: TASK_SESSION, answerMs: ANSWER_MS, ...options });
  }
}

/** The NUL-ended entries of an answer, each cut at its first spaces into `fields` parts. */
export function entriesOf(reply: Reply, fields: number): string[][] {
  return decoder
    .decode(replyBytes(reply))
    .split("\0")
    .filter(Boolean)
    .map((entry) => {
      const parts = entry.split(" ");
      return parts.slice(0, fields - 1).concat(parts.slice(fields - 1).join(" "));
    });
}

/** The directory for a clone: the repository's name, below /workspace. @throws {ToolError} for a URL without a name */
export function cloneDirectory(repository: string): string {
  const name = repository
    .replace(/[?#].*$/, "")
    .replace(/\/+$/, "")
    .replace(/\.git$/, "")
    .split(/[/:]/)
    .at(-1);
  const clean = name?.replaceAll(/[^A-Za-z0-9._-]/g, "-").replace(/^[.-]+/, "");
  if (clean) return `/workspace/${clean}`;
  throw new ToolError(
    "invalid_argument",
    `${repository} does not name a repository.`,
    "Pass the address that git clone takes.",
  );
}
