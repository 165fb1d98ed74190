/** The command line as a user runs it. */
import { spawn } from "node:child_process";
import { expect, vi } from "vitest";
import { join } from "node:path";
import { run } from "../../cli/run-program.ts";
import { repository } from "./server.ts";

interface Ended {
  code: number | string;
  stdout: string;
  stderr: string;
}

interface Running {
  ended: Promise<Ended>;
  stdout(): string;
  stderr(): string;
  kill(signal: NodeJS.Signals): void;
  stdin: NodeJS.WritableStream;
  /** Closes the reading end of its standard output, like head. */
  closeStdout(): void;
}

export interface CLIOptions {
  /** Merged with this process's environment; undefined removes a variable. */
  env?: Record<string, string | undefined>;
  cwd?: string;
  /** A program to run in place of the command line. */
  program?: string;
}

export function startCLI(words: readonly string[], { env = {}, cwd, program }: CLIOptions = {}): Running {
  const [file, ...before] =
    program === undefined ? [process.execPath, join(repository, "cli/main.ts")] : [program];
  const child = spawn(file ?? "", [...before, ...words], {
    cwd,
    env: { ...process.env, SANDBOX_MCP_URL: undefined, SANDBOX_MCP_TOKEN: undefined, ...env },
    stdio: "pipe",
  });
  const printed = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (printed.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (printed.stderr += text));
  const ended = new Promise<Ended>((resolve) => {
    child.once("close", (code, signal) => resolve({ code: code ?? signal ?? "unknown", ...printed }));
  });
  child.stdin.on("error", () => undefined);
  return {
    ended,
    stdout: () => printed.stdout,
    stderr: () => printed.stderr,
    kill: (signal) => child.kill(signal),
    stdin: child.stdin,
    closeStdout: () => child.stdout.destroy(),
  };
}

/** Runs `sandbox-mcp` as a process. @param input its standard input */
export function runCLI(words: readonly string[], options?: CLIOptions, input = ""): Promise<Ended> {
  const running = startCLI(words, options);
  running.stdin.end(input);
  return running.ended;
}

/**
 * Runs `sandbox-mcp` in this process, which takes a hundredth of the time. Use it for commands that read no standard
 * input and print text.
 */
export async function runHere(
  words: readonly string[],
  { env = {}, cwd }: Omit<CLIOptions, "program"> = {},
): Promise<Ended> {
  const ended = { code: 0, stdout: "", stderr: "" };
  const spies = (["stdout", "stderr"] as const).map((name) =>
    vi.spyOn(process[name], "write").mockImplementation((text) => {
      ended[name] += String(text);
      return true;
    }),
  );
  const restore = changeEnvironment({ SANDBOX_MCP_URL: undefined, SANDBOX_MCP_TOKEN: undefined, ...env });
  const directory = cwd === undefined ? undefined : vi.spyOn(process, "cwd").mockReturnValue(cwd);
  try {
    ended.code = await run(words);
  } finally {
    for (const spy of spies) spy.mockRestore();
    directory?.mockRestore();
    restore();
    process.exitCode = undefined;
  }
  return ended;
}

/** @returns functions that run commands with these options */
export function commandsWith(options: CLIOptions) {
  /** Starts a process only if there is an input. */
  const runCommand = (words: readonly string[], input?: string) =>
    input === undefined ? runHere(words, options) : runCLI(words, options, input);
  /** Runs a command with `--json`, and returns its one document. */
  const json = async (words: readonly string[]): Promise<Record<string, unknown>> => {
    const { stdout } = await runCommand([...words, "--json"]);
    expect(stdout).toMatch(/^\{"success":(true|false),[^\n]+\n$/);
    return JSON.parse(stdout);
  };
  return { run: runCommand, json };
}

/** Changes this process's environment. Returns a function that restores it. */
function changeEnvironment(changes: Record<string, string | undefined>): () => void {
  const before = Object.keys(changes).map((name) => [name, process.env[name]] as const);
  const set = (name: string, value: string | undefined) => {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  };
  for (const [name, value] of Object.entries(changes)) set(name, value);
  return () => {
    for (const [name, value] of before) set(name, value);
  };
}
