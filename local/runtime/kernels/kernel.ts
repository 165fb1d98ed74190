import { type ChildProcess, spawn } from "node:child_process";
import { realpathSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { attempt } from "../../../container/sandboxd/file-error.ts";
import type { KernelProgram } from "../../../src/shared/languages.ts";
import { SerialQueue } from "../../../src/shared/queue.ts";

export interface KernelReply {
  stdout?: string;
  stderr?: string;
  success?: boolean;
  error?: { type?: string; message?: string; traceback?: string } | null;
}

interface Origin {
  startedAt: number;
  command: string;
  file: string | undefined;
  packages: string[];
}

const START_TIMEOUT_MS = 60_000;
/** How imprecise the times of files may be, in milliseconds. */
const FILE_TIME_ERROR_MS = 10;

/** The environment variable with the script's path. On the command line, a user's `pkill -f /opt` would match the path. */
const PYTHON_SCRIPT = "SANDBOX_MCP_KERNEL";
const PYTHON_BOOT = `import os, sys
sys.argv[0] = __file__ = os.environ.pop("${PYTHON_SCRIPT}")
sys.path[0] = os.path.dirname(__file__)
exec(compile(open(__file__).read(), __file__, "exec"))`;

interface ProgramStart {
  command: string;
  /** The file of the kernel in the scripts' directory. */
  script: string;
  args(script: string): string[];
}

export const PROGRAMS: Record<KernelProgram, ProgramStart> = {
  python: { command: "python3", script: "python-kernel.py", args: () => ["-u", "-c", PYTHON_BOOT] },
  javascript: { command: process.execPath, script: "node-kernel.cjs", args: (script) => [script] },
};

/** One kernel process. Cells run one after another. If the process dies, its cell never ends, as in the image. */
export class Kernel {
  readonly program: KernelProgram;
  readonly #child: ChildProcess;
  readonly #origin: Origin;
  readonly #queue = new SerialQueue();

  private constructor(program: KernelProgram, child: ChildProcess, origin: Origin) {
    this.program = program;
    this.#child = child;
    this.#origin = origin;
  }

  /** Starts a kernel and waits until it accepts code. Rejects after a minute. */
  static start(program: KernelProgram, scripts: string, cwd: string): Promise<Kernel> {
    const { command, args, script: name } = PROGRAMS[program];
    const script = join(scripts, name);
    const file = fileOf(command);
    const startedAt = Date.now();
    const child = spawn(command, args(script), {
      stdio: ["pipe", "pipe", "pipe"],
      cwd,
      env: {
        ...process.env,
        PYTHONUNBUFFERED: "1",
        NODE_NO_WARNINGS: "1",
        ...(program === "python" && { [PYTHON_SCRIPT]: script }),
      },
    });
    child.stdout.setEncoding("utf8");
    child.stderr.setEncoding("utf8");
    child.stdin.on("error", () => {});
    return new Promise((resolve, reject) => {
      let errors = "";
      let output = "";
      const timer = setTimeout(() => child.kill("SIGKILL"), START_TIMEOUT_MS);
      const onError = (chunk: string) => {
        errors = (errors + chunk).slice(-2000);
      };
      const onExit = () => {
        clearTimeout(timer);
        reject(new Error(`The ${program} kernel did not start: ${errors.trim() || "no output"}`));
      };
      const onData = (chunk: string) => {
        output += chunk;
        const ready = output
          .split("\n")
          .slice(0, -1)
          .find((line) => line.includes('"ready"'));
        if (ready === undefined) return;
        clearTimeout(timer);
        child.stdout.off("data", onData);
        child.stderr.off("data", onError);
        child.stderr.resume();
        child.off("exit", onExit);
        resolve(new Kernel(program, child, { startedAt, command, file, packages: packagesIn(ready) }));
      };
      child.stdout.on("data", onData);
      child.stderr.on("data", onError);
      child.once("exit", onExit);
      child.once("error", (error) => {
        clearTimeout(timer);
        reject(error);
      });
    });
  }

  /**
   * A kernel that a signal has killed counts as healthy, and its cells never end. This is the same in the image, whose server
   * checks only the exit code.
   */
  get isHealthy(): boolean {
    return !this.#child.killed && this.#child.exitCode === null;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Whether a kernel started now would be the same program with the same packages and .pth files. */
  get isCurrent(): boolean {
    const { startedAt, command, file, packages } = this.#origin;
    if (fileOf(command) !== file) return false;
    // Compares the status change time, because a restore sets the modification time. Linux's clock for files may be late by a tick.
    return packages.every((path) => {
      const changedAt = statSync(path, { throwIfNoEntry: false })?.ctimeMs ?? 0;
      return changedAt < startedAt - FILE_TIME_ERROR_MS;
    });
  }

  execute(code: string): Promise<KernelReply> {
    return this.#queue.run(() => this.#send(code));
  }

  #send(code: string): Promise<KernelReply> {
    return new Promise((resolve) => {
      const pieces: string[] = [];
      const onData = (chunk: string) => {
        pieces.push(chunk);
        // A response is one JSON object, so it is complete only if a chunk ends with a brace.
        if (!chunk.trimEnd().endsWith("}")) return;
        try {
          const reply = JSON.parse(pieces.join("")) as KernelReply;
          this.#child.stdout?.off("data", onData);
          resolve(reply);
        } catch {
          // The document is not complete yet.
        }
      };
      this.#child.stdout?.on("data", onData);
      this.#child.stdin?.write(`${JSON.stringify({ code })}\n`);
    });
  }

  /** Sends SIGTERM, as the image does. A JavaScript kernel in a loop that never yields does not end. */
  stop(): void {
    this.#child.kill();
  }
}

function fileOf(command: string): string | undefined {
  if (command.includes("/")) return command;
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    const file = attempt(() => realpathSync(join(directory, command)), undefined);
    if (file !== undefined) return file;
  }
  return undefined;
}

/** The directories that a kernel names when it is ready. User code may have printed the line, so it is checked. */
function packagesIn(line: string): string[] {
  return attempt(() => {
    const { packages }: { packages?: unknown } = JSON.parse(line);
    // Fails for an object with a member `toString`.
    return Array.isArray(packages) ? packages.map(String) : [];
  }, []);
}
