/** The server as a user starts it: `npm start`. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { choosePython, findPythons } from "../../local/engine/python.ts";
import { waitForEnd, tree } from "./processes.ts";

export const repository = fileURLToPath(new URL("../..", import.meta.url));
export const TOKEN = "e2e-test-owner-token";

export interface ServerOptions {
  /** Flags after `npm start --`. The default is any free port and a new state directory. */
  flags?: string[];
  /** Merged with this process's environment; undefined removes a variable. */
  env?: Record<string, string | undefined>;
  directory?: string;
  /** Makes npm the leader of a process group, like a shell's foreground job. */
  ownGroup?: boolean;
  /** A program and its arguments to run npm in. */
  within?: string[];
  /**
   * Whether npm starts the server with its defaults, as for a user. Otherwise Node runs the program of `npm start` directly, which
   * saves 0.7 s of processor time, and the server prepares no sandboxes.
   */
  asUser?: boolean;
}

interface Command {
  child: ChildProcess;
  stdout(): string;
  stderr(): string;
  /** Resolves after the program's end with its exit status, or the signal that killed it. Waits up to 2 s for the last output. */
  exited: Promise<number | string>;
}

export interface Server extends Command {
  url: string;
  /** Stops the server, and waits until all its processes have ended. */
  stop(): Promise<void>;
}

/** Runs `npm start`. Without `asUser`, runs the program that npm would run. */
export function startCommand({ asUser = false, flags = [], env, ...options }: ServerOptions = {}): Command {
  if (asUser) return npm(["start", "--", ...flags], { ...options, env });
  return run([process.execPath, "cli/npm-script.mjs", "start", ...flags], {
    ...options,
    env: { ...ECONOMIES, PATH: pathOf(join(repository, "node_modules/.bin")), ...env },
  });
}

/** Runs npm as a user does. */
export function npm(
  words: readonly string[],
  options: Omit<ServerOptions, "flags" | "asUser"> = {},
): Command {
  return run(["npm", ...words], options);
}

function run(
  words: readonly string[],
  {
    env = {},
    directory = repository,
    ownGroup = false,
    within = [],
  }: Omit<ServerOptions, "flags" | "asUser">,
): Command {
  const [program = "", ...rest] = [...within, ...words];
  const child = spawn(program, rest, {
    cwd: directory,
    env: environment({ SERVER_AUTH_TOKEN: TOKEN, SANDBOX_MCP_PYTHON: python, ...env }),
    stdio: ["ignore", "pipe", "pipe"],
    detached: ownGroup,
  });
  const printed = { stdout: "", stderr: "" };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (printed.stdout += text));
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (printed.stderr += text));
  const exited = new Promise<number | string>((resolve) => {
    child.once("exit", (code, signal) => {
      const resolveWithStatus = () => resolve(code ?? signal ?? "unknown");
      // Processes that still run may keep the pipe open.
      child.once("close", resolveWithStatus);
      setTimeout(resolveWithStatus, 2000).unref();
    });
  });
  return { child, exited, stdout: () => printed.stdout, stderr: () => printed.stderr };
}

const START_MS = 150_000;

/** Starts a server and waits until it is ready. @throws Error with its output if it ends first */
export async function startServer(options: ServerOptions = {}): Promise<Server> {
  const givenFlags = options.flags ?? [];
  const temporary = givenFlags.includes("--state-dir")
    ? undefined
    : mkdtempSync(join(tmpdir(), "sandbox-mcp-e2e-"));
  const flags = [...givenFlags];
  if (!flags.includes("--port")) flags.push("--port", "0");
  if (temporary !== undefined) flags.push("--state-dir", temporary);
  // The default would limit suites that start many sandboxes.
  const env = { MAX_RUNNING_SANDBOXES: "1000", ...options.env };
  const command = startCommand({ ...options, env, flags });
  const url = await new Promise<string>((resolve, reject) => {
    command.child.stdout?.on("data", () => {
      const match = /^ {2}URL +(\S+)$/m.exec(command.stdout());
      if (match?.[1] !== undefined && command.stdout().includes("Ctrl-C")) resolve(match[1]);
    });
    // Files start servers while they are loaded, and then no time limit of the test runner applies.
    setTimeout(reject, START_MS, new Error(`The server is not ready after ${START_MS} ms.`)).unref();
    void command.exited.then((status) =>
      reject(new Error(`The server ended: ${status}\n${command.stderr()}`)),
    );
  });
  return {
    ...command,
    url,
    async stop() {
      const all = tree(command.child.pid ?? 0);
      command.child.kill("SIGTERM");
      await command.exited;
      await waitForEnd(all, 10_000);
      if (temporary !== undefined) rmSync(temporary, { recursive: true, force: true });
      // A user would see a warning of Node too.
      const [warning] = command.stderr().match(/^\(node:\d+\) .*Warning: .*/m) ?? [];
      if (warning !== undefined) throw new Error(`The server printed a warning: ${warning}`);
    },
  };
}

/** Variables that save processor time. */
const ECONOMIES = {
  // For each certificate miniflare would copy the Worker, which takes 0.2 s. The servers of tests call only this machine.
  NODE_EXTRA_CA_CERTS: undefined,
  NODE_OPTIONS: `--import=${join(repository, "tests/setup/unprepared.mjs")}`,
};

/** A command that runs npm as on a machine without python3, as an ordinary user. */
export function withoutPython(): string[] {
  const directories = ["/usr/bin", ...(process.env.PATH ?? "").split(":")];
  const files = directories.map((directory) => join(directory, "python3")).filter((file) => existsSync(file));
  const hidden = [...new Set(files)].flatMap((file) => ["--ro-bind", "/dev/null", file]);
  const identity = ["--unshare-user", "--uid", "1000", "--gid", "1000"];
  return ["bwrap", "--die-with-parent", ...identity, "--dev-bind", "/", "/", ...hidden];
}

/** A Python with the packages of sandboxes, so that no server of a test installs them. */
export const python = process.env.TESTS_PYTHON ?? choosePython(await findPythons())?.executable;

/** This process's environment without the test runner's and npm's variables, as in a user's shell. */
function environment(changes: Record<string, string | undefined>): Record<string, string> {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(npm_|VITEST|VITE_|NODE_ENV$|INIT_CWD$|TEST$|DEV$|PROD$|MODE$|BASE_URL$|SSR$)/i.test(name),
  );
  return Object.fromEntries(
    Object.entries({ ...Object.fromEntries(inherited), PATH: pathOf(), ...changes }).filter(
      (entry): entry is [string, string] => entry[1] !== undefined,
    ),
  );
}

/** PATH with these directories first, and without the test runner's, because `npm start` itself adds the package's programs. */
function pathOf(...first: string[]): string {
  const own = (process.env.PATH ?? "").split(":").filter((entry) => !entry.includes("node_modules"));
  return [...first, ...own].join(":");
}
