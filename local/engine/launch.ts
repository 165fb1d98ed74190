/** Starts a sandbox with its two servers, the control server and sandboxd, and connects to them. */
import {
  close,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
} from "node:fs";
import { writeFile } from "node:fs/promises";
import { connect, type Server, type Socket } from "node:net";
import { basename, dirname } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import { procStat } from "../../container/sandboxd/proc-stat.ts";
import type { ExitReport } from "../platform/engine-protocol.ts";
import {
  controlProgram,
  controlSocket,
  kernelsDirectory,
  nodeProgram,
  sandboxdProgram,
  sandboxdSocket,
} from "./bubblewrap.ts";
import { O_PATH } from "./host-files.ts";
import { superviseCommand } from "./init.ts";
import { start, type Processes, type StartOptions } from "./sandbox-processes.ts";
import type { Toolchain } from "./toolchain.ts";
import { messageOf, quote } from "../../src/shared/text.ts";
import { attempt, codeOf } from "../../container/sandboxd/file-error.ts";
import { MACHINE, START_PROBLEMS } from "./texts.ts";

export type OwnServer = "control" | "sandboxd";

export interface RunningProcess {
  pid?: number;
  connect(to: OwnServer): Socket;
  egress: readonly Server[];
  signal(signal: NodeJS.Signals): void;
  kill(): Promise<void>;
  /** Settles when every process has ended, and the sandbox's files are gone; never rejects. */
  exited: Promise<ExitReport>;
}

export type LaunchOptions = Omit<StartOptions, "command">;

function nodeCommand({ nodeOptions }: Toolchain, program: string, ...more: string[]): string[] {
  return [nodeProgram, ...nodeOptions, program, ...more];
}

const controlCommand = (toolchain: Toolchain): string[] =>
  nodeCommand(toolchain, controlProgram, "--socket", controlSocket, "--kernels", kernelsDirectory);

const sandboxdCommand = (toolchain: Toolchain): string[] =>
  nodeCommand(toolchain, sandboxdProgram, "--socket", sandboxdSocket);

/**
 * Loads both programs, which fills the compile cache. The control server ends with an error, because it gets no socket. sandboxd
 * writes a list of files and ends with 0, which is the command's exit status.
 */
export const loadCommand = (toolchain: Toolchain): string[] => {
  const control = nodeCommand(toolchain, controlProgram);
  const sandboxd = nodeCommand(toolchain, sandboxdProgram, "--write-base", "/tmp/base.list");
  return ["/bin/sh", "-c", [control, sandboxd].map((words) => words.map(quote).join(" ")).join("; ")];
};

const readyTimeoutMs = 30_000;

/** Waits until the control server accepts connections. @throws Error with the output if the sandbox does not start or hangs */
export async function launch(options: LaunchOptions): Promise<RunningProcess> {
  const { processes, pid } = await begin(options);
  const deadline = Date.now() + readyTimeoutMs;
  let ended: ExitReport | undefined;
  void processes.exited.then((report) => (ended = report));
  let egress: readonly Server[] = [];
  const handedOver = processes.listeners.then((listeners) => (egress = listeners));
  try {
    const isActive = () => ended === undefined && Date.now() < deadline;
    const control = await openControlSocket(pid, isActive, handedOver);
    const connections = new Set<Socket>();
    // The thread that closes the last reference to the sandbox's files frees them. For 2.6 million directories this takes 5 s, in
    // which the engine's main thread would serve no other sandbox. So the last reference must be the descriptor
    // `control.directory`, which another thread closes. Connections close before, because their unread data can contain references (SCM_RIGHTS).
    const exited = processes.exited.then(async (report) => {
      for (const connection of connections) connection.destroy();
      await promisify(close)(control.directory);
      return report;
    });
    // Kernels inherit this score. Commands keep the higher score of the sandbox, so Linux ends them first: docs/reference/local.md.
    await writeFile(`/proc/${control.pid}/oom_score_adj`, "300").catch(() => undefined);
    return {
      pid,
      egress,
      connect: (to) => {
        // The directory's descriptor is closed, and its number may belong to another file now.
        if (ended !== undefined) throw new Error(START_PROBLEMS.ended);
        const name = basename(to === "control" ? controlSocket : sandboxdSocket);
        const connection = connectBelow(control.directory, name);
        connections.add(connection);
        return connection.once("close", () => connections.delete(connection));
      },
      signal: (signal) => {
        // Fails if the first process has ended. Then the sandbox ends, too.
        if (ended === undefined) attempt(() => process.kill(pid, signal), false);
      },
      kill: processes.kill,
      exited,
    };
  } catch (error) {
    await processes.kill();
    throw new Error(MACHINE.notStarted(reason(error, processes)), { cause: error });
  }
}

/** Starts the processes. A retry would not help after a failure: a file is missing, or the machine allows no namespaces. */
async function begin(options: LaunchOptions): Promise<{ processes: Processes; pid: number }> {
  let processes: Processes | undefined;
  try {
    const { limits, toolchain } = options;
    const command = superviseCommand(sandboxdCommand(toolchain), controlCommand(toolchain), limits);
    processes = await start({ ...options, command });
    return { processes, pid: await processes.pid };
  } catch (error) {
    await processes?.kill();
    throw new Error(MACHINE.noSandbox(reason(error, processes)), { cause: error });
  }
}

function reason(error: unknown, processes: Processes | undefined): string {
  const printed = processes?.output().trim() ?? "";
  if (printed !== "") return printed;
  return messageOf(error);
}

/**
 * Connects to a socket below an open directory. User code may replace the socket with a symbolic link, which the host would
 * follow. So a link is refused.
 */
function connectBelow(directory: number, name: string): Socket {
  const fd = openSync(`/proc/self/fd/${directory}/${name}`, O_PATH | constants.O_NOFOLLOW);
  try {
    if (!fstatSync(fd).isSocket()) throw new Error(`${name} is not a socket`);
    return connect(`/proc/self/fd/${fd}`);
  } finally {
    closeSync(fd);
  }
}

/**
 * Opens the directory of the control server's socket once the server listens. At that time, no user code has run, and the server
 * has handed its listeners to the engine.
 */
async function openControlSocket(
  first: number,
  isActive: () => boolean,
  handedOver: Promise<unknown>,
): Promise<{ pid: number; directory: number }> {
  let server: number | undefined;
  while (isActive()) {
    const pid = childOf(first);
    server ??= pid;
    // The control server has ended. After a restart it would end again.
    if (server !== undefined && !existsSync(`/proc/${server}`)) break;
    if (pid !== undefined) {
      try {
        const fd = openSync(`/proc/${pid}/root${controlSocket}`, O_PATH | constants.O_NOFOLLOW);
        const isListening = await canConnect(`/proc/self/fd/${fd}`);
        closeSync(fd);
        if (isListening) {
          const directory = openSync(
            `/proc/${pid}/root${dirname(controlSocket)}`,
            O_PATH | constants.O_NOFOLLOW,
          );
          return { pid, directory };
        }
      } catch (error) {
        const code = codeOf(error);
        if (code !== "ENOENT" && code !== "EACCES" && code !== "ESRCH") throw error;
      }
    }
    await pause(4);
    // The control server listens just after it has handed over its listeners. Earlier checks would only cost processor time.
    await Promise.race([handedOver, pause(50)]);
  }
  throw new Error(START_PROBLEMS.controlLate);
}

function childOf(pid: number): number | undefined {
  try {
    const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ");
    return child === undefined || child === "" ? undefined : Number(child);
  } catch {
    // Linux without CONFIG_PROC_CHILDREN has no such file.
    return readdirSync("/proc")
      .map(Number)
      .find((other) => Number(procStat(other)?.[1]) === pid);
  }
}

export async function canConnect(path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => (socket.destroy(), resolve(true)));
    socket.once("error", () => resolve(false));
  });
}
