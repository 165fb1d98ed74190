/** Finds the files that a coding agent changed. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type FileHandle, lstat, open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Readable, type Writable } from "node:stream";
import type { Call, FileRequests } from "./operations.ts";
import { RESPONSE_BYTES, CHANGES_DIFF, CHANGES_LIST, type FoundChanges, taskDirectory } from "./shapes.ts";
import { send } from "./run-processes.ts";

const LIST_CHUNK_CHARS = 64 * 1024;
const MAX_OUTPUT_CHARS = 1000;
const SCRIPT = "/opt/sandbox-mcp/task.sh";
const TREE = /^[0-9a-f]{40,64}\n?$/;
const CHANGES: Record<string, FoundChanges["files"][number]["change"]> = { A: "created", D: "deleted" };
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export async function findChanges(
  { path, task, limit }: Call<FileRequests["changes"]>,
  signal: AbortSignal,
): Promise<FoundChanges | undefined> {
  const taskFiles = taskDirectory(task);
  const start = await readFile(join(taskFiles, "start"), "latin1").catch(() => "");
  const isThere = await stat(path).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  if (!TREE.test(start) || !isThere) return undefined;
  const end = await shortOutputOf("bash", [SCRIPT, "snapshot", task], { cwd: path, signal });
  if (end === undefined || !TREE.test(end)) return undefined;
  const trees = [start.trim(), end.trim()];
  const env = {
    GIT_DIR: join(taskFiles, "git"),
    GIT_WORK_TREE: path,
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_CONFIG_GLOBAL: "/dev/null",
  };
  const options = { cwd: path, env, signal };
  const list = await open(join(taskFiles, CHANGES_LIST), "w");
  const diff = await open(join(taskFiles, CHANGES_DIFF), "w");
  try {
    const found = await listChanges(path, trees, limit, list, options);
    if (found === undefined) return undefined;
    const { isEscaped, ...listed } = found;
    // One file name that is not UTF-8 would make the whole diff binary, so git escapes it.
    const settings = ["-c", `core.quotePath=${isEscaped}`, "-c", "core.autocrlf=false"];
    const shape = ["--no-color", "--no-ext-diff", "--no-textconv", "--find-renames"];
    const git = startProgram("git", [...settings, "diff", ...shape, ...trees], { ...options, into: diff });
    if ((await git.ended) !== 0) return undefined;
    return { ...listed, diffBytes: (await diff.stat()).size };
  } finally {
    await list.close();
    await diff.close();
  }
}

async function listChanges(
  path: string,
  trees: string[],
  limit: number,
  list: FileHandle,
  options: ProgramOptions,
): Promise<(Omit<FoundChanges, "diffBytes"> & { isEscaped: boolean }) | undefined> {
  const shape = ["-r", "-z", "--no-renames", "--name-status"];
  const git = startProgram("git", ["diff-tree", ...shape, ...trees], options);
  const files: FoundChanges["files"] = [];
  let [count, bytes, isEscaped] = [0, 0, false];
  let lines = "";
  let letter: string | undefined;
  for await (const word of splitAtNul(git.output)) {
    if (letter === undefined) {
      letter = word.toString("latin1");
      continue;
    }
    const change = CHANGES[letter] ?? "changed";
    letter = undefined;
    const file = { change, ...(await describeFile(path, word, change === "deleted")) };
    isEscaped ||= file.type === "unnamed";
    count++;
    bytes += JSON.stringify(file).length;
    if (files.length < limit && bytes < RESPONSE_BYTES / 2) files.push(file);
    const size = change === "deleted" ? "" : ` (${file.size} bytes)`;
    lines += `${change} ${file.path.replaceAll("\n", "\\n")}${size}\n`;
    if (lines.length < LIST_CHUNK_CHARS) continue;
    await list.write(lines);
    lines = "";
  }
  if ((await git.ended) !== 0) return undefined;
  await list.write(lines);
  return { count, listBytes: (await list.stat()).size, files, isEscaped };
}

async function describeFile(
  directory: string,
  name: Buffer,
  isDeleted: boolean,
): Promise<Pick<FoundChanges["files"][number], "path" | "type" | "size">> {
  const at = Buffer.concat([Buffer.from(`${directory}/`), name]);
  const stats = isDeleted ? undefined : await lstat(at).catch(() => undefined);
  const size = stats?.size ?? 0;
  try {
    return { path: strict.decode(name), type: stats?.isSymbolicLink() ? "link" : "file", size };
  } catch {
    return { path: escapeName(name), type: "unnamed", size };
  }
}

function escapeName(name: Buffer): string {
  const text = name
    .toString("latin1")
    .replaceAll(/["\\]/g, "\\$&")
    .replaceAll(/[^ -~]/g, (byte) => `\\${byte.charCodeAt(0).toString(8).padStart(3, "0")}`);
  return `"${text}"`;
}

/** A fixed path, because user code may have put other programs first in the PATH. */
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export interface Program {
  input: Writable | null;
  output: Readable;
  /** Rejects with a system error if the program cannot be started. */
  started: Promise<unknown>;
  /** The program's exit status, or null if a signal ended it. Rejects like `started`. */
  ended: Promise<number | null>;
  kill(): void;
}

interface ProgramOptions {
  hasInput?: boolean;
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  signal?: AbortSignal;
  /** A file that gets the program's output. If it is set, `output` is empty. */
  into?: FileHandle;
}

export function startProgram(
  program: string,
  args: string[],
  { hasInput = false, cwd, env, signal, into }: ProgramOptions = {},
): Program {
  const child = spawn(program, args, {
    cwd,
    env: { ...process.env, PATH, ...env },
    stdio: [hasInput ? "pipe" : "ignore", into?.fd ?? "pipe", "ignore"],
    detached: true,
  });
  const kill = () => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null)
      send(-child.pid, "SIGKILL");
  };
  signal?.addEventListener("abort", kill);
  const started = once(child, "spawn");
  started.catch(() => undefined);
  const ended = once(child, "close")
    .then(([status]): number | null => status)
    .finally(() => signal?.removeEventListener("abort", kill));
  ended.catch(() => undefined);
  if (signal?.aborted) kill();
  return { input: child.stdin, output: child.stdout ?? Readable.from([]), started, ended, kill };
}

async function shortOutputOf(
  program: string,
  args: string[],
  options: ProgramOptions,
): Promise<string | undefined> {
  const { output, ended, kill } = startProgram(program, args, options);
  let text = "";
  for await (const chunk of output) {
    text += String(chunk);
    if (text.length > MAX_OUTPUT_CHARS) kill();
  }
  return (await ended) === 0 ? text : undefined;
}

async function* splitAtNul(stream: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let rest = Buffer.alloc(0);
  for await (const chunk of stream) {
    rest = Buffer.concat([rest, chunk]);
    let from = 0;
    for (let at = rest.indexOf(0); at >= 0; at = rest.indexOf(0, from)) {
      yield rest.subarray(from, at);
      from = at + 1;
    }
    rest = rest.subarray(from);
  }
}
