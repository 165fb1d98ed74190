/** Starts one sandbox's processes under bubblewrap and says when they have ended. */
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import type { Readable, Writable } from "node:stream";
import type { ExitReport } from "../platform/protocol.ts";
import {
  bubblewrapArguments,
  controlSocket,
  egressSocket,
  readInfo,
  runtimeDirectory,
  scratchDirectory,
  sizesFor,
  type Mount,
} from "./bubblewrap.ts";
import { seccompFilter } from "./seccomp.ts";
import type { Limits } from "./limits.ts";
import type { Stage } from "./stage.ts";
import type { Toolchain } from "./toolchain.ts";

/** Something that runs, in whatever isolation. */
export interface Running {
  /** A connection to the control server's socket. */
  connect(): Socket;
  /** Sends a signal to the control server alone. */
  signal(signal: NodeJS.Signals): void;
  /** Kills every process. Resolves when none is left. */
  kill(): Promise<void>;
  /** Settles when every process has ended; never rejects. */
  exited: Promise<ExitReport>;
}

export interface LaunchOptions {
  mounts: Mount[];
  toolchain: Toolchain;
  limits: Limits;
  env: Record<string, string>;
  groups: string[];
  supported: ReadonlySet<string>;
  /** For an engine of root's: where bubblewrap is started, and the user id it is started as. */
  stage: { stage: Stage; uid: number } | undefined;
  /** What the sandbox may write to on the host. Nothing, for a sandbox that a user gets. */
  writable?: Mount[];
  /** The command in the sandbox; the control server unless given. */
  command?: string[];
  /** Called with everything the sandbox's own processes print to their stdout and stderr. */
  onOutput: (text: string) => void;
}

/** The control server's program. */
export const runtimeProgram = [
  `${runtimeDirectory}/bin/node`,
  "--disable-warning=ExperimentalWarning",
  `${runtimeDirectory}/runtime/main.ts`,
];

/** The control server as the sandbox starts it. */
export const runtimeCommand = [
  ...runtimeProgram,
  "--socket",
  controlSocket,
  "--egress",
  egressSocket,
  "--scratch",
  scratchDirectory,
];

/**
 * The first program in the sandbox. It waits for the engine's word, which comes once the death of the engine
 * is sure to end the sandbox, and ends when the engine is gone before that. It closes what file descriptors
 * came along and lowers the limits, which count per sandbox here: inside its user namespace.
 */
const gate = [
  "IFS= read -r go || exit 125",
  'for fd in /proc/self/fd/*; do fd=${fd##*/}; if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi; done',
  "ulimit -c 0",
  'ulimit -n "$1" 2>/dev/null',
  'ulimit -u "$2" 2>/dev/null',
  "shift 2",
  'exec "$@"',
].join("\n");

/**
 * On the host, before anything else: joins the control groups, and prefers the sandbox to anything else on this
 * machine when memory runs out. Exit status 126 when a group cannot be joined.
 */
export const prelude = [
  "echo 500 2>/dev/null >/proc/self/oom_score_adj",
  'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit 126; shift; done',
  "shift",
  'exec "$@"',
].join("\n");

/** How long a sandbox may take from its start to its first answer. */
const readyTimeoutMs = 30_000;

/**
 * Starts a sandbox and waits until its control server accepts connections.
 * @throws Error with what the sandbox printed, when it ends or hangs before that.
 */
export async function launch(options: LaunchOptions): Promise<Running> {
  const processes = await start(options);
  const deadline = Date.now() + readyTimeoutMs;
  let ended: ExitReport | undefined;
  void processes.exited.then((report) => (ended = report));
  try {
    const pid = await processes.pid;
    const control = await openControlSocket(pid, () => ended === undefined && Date.now() < deadline);
    void processes.exited.then(() => closeSync(control.fd));
    // User code is started by the control server, which raises the score of what it starts; see docs/architecture.md.
    await writeFile(`/proc/${control.pid}/oom_score_adj`, "300").catch(() => undefined);
    return {
      // The descriptor stands for the socket itself: no name in the sandbox is looked up again, so nothing
      // there can lead the engine to another socket.
      connect: () => connect(`/proc/self/fd/${control.fd}`),
      signal: (signal) => {
        if (ended === undefined) process.kill(control.pid, signal);
      },
      kill: processes.kill,
      exited: processes.exited,
    };
  } catch (error) {
    await processes.kill();
    const printed = processes.output().trim();
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`The sandbox did not start: ${printed === "" ? reason : printed}`, { cause: error });
  }
}

interface Processes {
  /** The host's process id of the sandbox's first process; rejects when it ends before. */
  pid: Promise<number>;
  kill(): Promise<void>;
  exited: Promise<ExitReport>;
  /** The last of what was printed. */
  output(): string;
}

/** Starts bubblewrap with a command. The command begins when the sandbox is complete. */
export async function start(options: LaunchOptions): Promise<Processes> {
  const { stage, groups, limits } = options;
  const mounts = stage === undefined ? options.mounts : stage.stage.translate(options.mounts);
  const sizes = sizesFor(limits.diskBytes);
  const filter = seccompFilter();
  const inner = bubblewrapArguments(
    mounts,
    options.toolchain,
    sizes,
    options.env,
    options.supported,
    filter !== undefined,
  );
  const writable = stage === undefined ? options.writable : stage.stage.translate(options.writable ?? []);
  for (const { from, to } of writable ?? []) inner.push("--bind", from, to);
  if (filter !== undefined) inner.push("--seccomp", "5");
  const outer = stage === undefined ? [] : await stage.stage.enter(stage.uid);
  const numbers = [String(limits.openFiles), String(limits.processes)];
  const command = ["/bin/bash", "-c", gate, "sandbox", ...numbers, ...(options.command ?? runtimeCommand)];
  // Variables given by the Worker may be secrets: they go by a pipe, since anyone can read a command line.
  const argv = [...outer, "bwrap", "--args", "4", "--info-fd", "3", "--", ...command];
  const child = spawn("/bin/sh", ["-c", prelude, "sandbox", ...groups, "--", ...argv], {
    cwd: "/",
    detached: true,
    env: { PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" },
    stdio: ["pipe", "pipe", "pipe", "pipe", "pipe", "pipe"],
  });
  const [stdin, , , info, args, seccomp]: readonly ChildStream[] = child.stdio;
  for (const stream of [stdin, info, args, seccomp]) stream?.on("error", () => undefined);
  write(args, inner.map((argument) => `${argument}\0`).join(""));
  write(seccomp, filter ?? Buffer.alloc(0));

  let printed = "";
  const collect = (chunk: Buffer) => {
    const text = chunk.toString();
    printed = (printed + text).slice(-4096);
    options.onOutput(text);
  };
  child.stdout?.on("data", collect);
  child.stderr?.on("data", collect);

  let first: number | undefined;
  const exited = new Promise<ExitReport>((resolve) => {
    child.once("error", (error) => resolve({ exitCode: 127, reason: error.message }));
    // Not "exit": what was printed last is read by then.
    child.once("close", (code, signal) => resolve({ exitCode: code ?? 137, reason: signal ?? "exit" }));
  });
  const pid = readInfo(info, exited).then((number) => {
    first = number;
    // From here on bubblewrap dies with the engine, and the sandbox with bubblewrap.
    child.stdin?.write("go\n");
    return number;
  });
  pid.catch(() => undefined);
  return { pid, exited, output: () => printed, kill: () => killAll(child, () => first, exited) };
}

/** The end of a namespace's first process ends all of them; bubblewrap is done when they are. */
async function killAll(
  child: ChildProcess,
  first: () => number | undefined,
  exited: Promise<ExitReport>,
): Promise<void> {
  const pid = first();
  if (child.exitCode === null && child.signalCode === null) {
    if (pid === undefined) child.kill("SIGKILL");
    else send(pid, "SIGKILL");
  }
  const late = setTimeout(() => child.kill("SIGKILL"), 2000);
  await exited;
  clearTimeout(late);
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It is gone already.
  }
}

/** Opens the control server's socket as soon as it is there; before that, nothing of a user's runs in the sandbox. */
async function openControlSocket(first: number, goOn: () => boolean): Promise<{ fd: number; pid: number }> {
  const oPath = 0o10000000;
  while (goOn()) {
    const pid = childOf(first);
    if (pid !== undefined) {
      try {
        const fd = openSync(`/proc/${pid}/root${controlSocket}`, oPath | constants.O_NOFOLLOW);
        if (!fstatSync(fd).isSocket()) throw new Error(`${controlSocket} is not a socket`);
        if (await accepts(`/proc/self/fd/${fd}`)) return { fd, pid };
        closeSync(fd);
      } catch (error) {
        const code = error instanceof Error && "code" in error ? error.code : undefined;
        if (code !== "ENOENT" && code !== "EACCES" && code !== "ESRCH") throw error;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
  throw new Error("its control server ended or did not answer in time");
}

/** The command's process: the only child of the sandbox's first process, which is bubblewrap's. */
function childOf(pid: number): number | undefined {
  try {
    const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ");
    return child === undefined || child === "" ? undefined : Number(child);
  } catch {
    // Some kernels are built without that file.
    return readdirSync("/proc")
      .map(Number)
      .find((other) => parentOf(other) === pid);
  }
}

function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  } catch {
    return undefined;
  }
}

async function accepts(path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => (socket.destroy(), resolve(true)));
    socket.once("error", () => resolve(false));
  });
}

function write(stream: ChildStream, data: string | Buffer): void {
  if (stream !== null && stream !== undefined && "end" in stream) stream.end(data);
}

type ChildStream = Readable | Writable | null | undefined;
