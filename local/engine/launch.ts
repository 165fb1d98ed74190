/** Starts one sandbox's control server and opens the way to it. */
import { closeSync, constants, existsSync, fstatSync, openSync, readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { connect, type Server, type Socket } from "node:net";
import { basename, dirname } from "node:path";
import type { ExitReport } from "../platform/engine-protocol.ts";
import { controlSocket, runtimeDirectory, sandboxdProgram, sandboxdSocket } from "./bubblewrap.ts";
import { supervised } from "./init.ts";
import { start, type Processes, type StartOptions } from "./sandbox-processes.ts";
import { moduleExtension } from "./own-files.ts";
import { messageOf } from "../../src/shared/text.ts";

/** The servers of ours that run in a sandbox. */
export type OwnServer = "control" | "sandboxd";

/** Something that runs, in whatever isolation. */
export interface RunningProcess {
  /** The host's process id of the first process, where it has namespaces of its own. */
  pid?: number;
  /** A connection to the socket of a server of ours in the sandbox. @throws Error where that has none */
  connect(to: OwnServer): Socket;
  /** The listeners of its way out, where it has one. */
  egress: readonly Server[];
  /** Sends a signal to the first process alone. */
  signal(signal: NodeJS.Signals): void;
  /** Kills every process. Resolves when none is left. */
  kill(): Promise<void>;
  /** Settles when every process has ended; never rejects. */
  exited: Promise<ExitReport>;
}

export type LaunchOptions = Omit<StartOptions, "command">;

/** The control server's program. */
export const runtimeProgram = [
  `${runtimeDirectory}/bin/node`,
  "--disable-warning=ExperimentalWarning",
  `${runtimeDirectory}/runtime/main${moduleExtension}`,
];

/** The control server as the sandbox starts it. */
const runtimeCommand = [...runtimeProgram, "--socket", controlSocket];

const sandboxdCommand = [`${runtimeDirectory}/bin/node`, sandboxdProgram, "--socket", sandboxdSocket];

/** How long a sandbox may take from its start to its first answer. */
const readyTimeoutMs = 30_000;

/**
 * Starts a sandbox and waits until its control server accepts connections.
 * @throws Error with what was printed, when the sandbox cannot be made, or ends or hangs before that.
 */
export async function launch(options: LaunchOptions): Promise<RunningProcess> {
  const { processes, pid } = await begin(options);
  const deadline = Date.now() + readyTimeoutMs;
  let ended: ExitReport | undefined;
  void processes.exited.then((report) => (ended = report));
  let egress: readonly Server[] = [];
  void processes.listeners.then((listeners) => (egress = listeners));
  try {
    const control = await openControlSocket(pid, () => ended === undefined && Date.now() < deadline);
    void processes.exited.then(() => closeSync(control.directory));
    // User code is started by the control server, which raises the score of what it starts; see docs/reference/local.md.
    await writeFile(`/proc/${control.pid}/oom_score_adj`, "300").catch(() => undefined);
    return {
      pid,
      egress,
      connect: (to) => {
        // Their numbers may be other files' by now.
        if (ended !== undefined) throw new Error("the sandbox has ended");
        return connectBelow(control.directory, basename(to === "control" ? controlSocket : sandboxdSocket));
      },
      signal: (signal) => {
        try {
          if (ended === undefined) process.kill(pid, signal);
        } catch {
          // It has ended, and the sandbox is about to.
        }
      },
      kill: processes.kill,
      exited: processes.exited,
    };
  } catch (error) {
    await processes.kill();
    throw new Error(`The sandbox did not start: ${reason(error, processes)}`, { cause: error });
  }
}

/** What fails here is this machine's, and fails again: a file of it that is shown is gone, or it makes no namespaces. */
async function begin(options: LaunchOptions): Promise<{ processes: Processes; pid: number }> {
  let processes: Processes | undefined;
  try {
    processes = await start({
      ...options,
      command: supervised(sandboxdCommand, runtimeCommand, options.limits),
    });
    return { processes, pid: await processes.pid };
  } catch (error) {
    await processes?.kill();
    throw new Error(`This machine cannot make a sandbox: ${reason(error, processes)}`, { cause: error });
  }
}

/** The words of whoever knows best. */
function reason(error: unknown, processes: Processes | undefined): string {
  const printed = processes?.output().trim() ?? "";
  if (printed !== "") return printed;
  return messageOf(error);
}

/** Opens something to stand for it in paths alone. */
const O_PATH = 0o10000000;

/**
 * Connects to a socket that is made anew when its server ends, in a directory that was opened before. User code can put
 * something else in its place; a symbolic link, which would be looked up on the host, is refused.
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

interface ControlServer {
  pid: number;
  /** The directory of its socket. */
  directory: number;
}

/**
 * Opens the directory of the control server's socket as soon as that is there; before that, nothing of a user's runs in the sandbox. By then the
 * control server has handed over its listeners.
 */
async function openControlSocket(first: number, isActive: () => boolean): Promise<ControlServer> {
  let server: number | undefined;
  while (isActive()) {
    const pid = childOf(first);
    server ??= pid;
    // Another one would end as well.
    if (server !== undefined && !existsSync(`/proc/${server}`)) break;
    if (pid !== undefined) {
      try {
        const fd = openSync(`/proc/${pid}/root${controlSocket}`, O_PATH | constants.O_NOFOLLOW);
        const isListening = await accepts(`/proc/self/fd/${fd}`);
        closeSync(fd);
        if (isListening) {
          const directory = openSync(
            `/proc/${pid}/root${dirname(controlSocket)}`,
            O_PATH | constants.O_NOFOLLOW,
          );
          return { pid, directory };
        }
      } catch (error) {
        const code = error instanceof Error && "code" in error ? error.code : undefined;
        if (code !== "ENOENT" && code !== "EACCES" && code !== "ESRCH") throw error;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
  throw new Error("its control server ended or did not answer in time");
}

/** The control server's process: the first child of the sandbox's first process. */
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

/** Whether somebody listens on a socket of the file system. */
export async function accepts(path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => (socket.destroy(), resolve(true)));
    socket.once("error", () => resolve(false));
  });
}
