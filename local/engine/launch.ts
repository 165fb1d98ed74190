/** Starts one sandbox's control server and opens the way to it. */
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { SANDBOXD_PORT } from "../../container/sandboxd/protocol.ts";
import type { ExitReport } from "../platform/protocol.ts";
import {
  controlSocket,
  egressSocket,
  runtimeDirectory,
  sandboxdProgram,
  scratchDirectory,
} from "./bubblewrap.ts";
import { start, type Processes, type StartOptions } from "./processes.ts";

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

export type LaunchOptions = Omit<StartOptions, "command">;

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
  "--sandboxd",
  sandboxdProgram,
  "--sandboxd-port",
  String(SANDBOXD_PORT),
];

/** How long a sandbox may take from its start to its first answer. */
const readyTimeoutMs = 30_000;

/**
 * Starts a sandbox and waits until its control server accepts connections.
 * @throws Error with what was printed, when the sandbox cannot be made, or ends or hangs before that.
 */
export async function launch(options: LaunchOptions): Promise<Running> {
  const { processes, pid } = await begin(options);
  const deadline = Date.now() + readyTimeoutMs;
  let ended: ExitReport | undefined;
  void processes.exited.then((report) => (ended = report));
  try {
    const control = await openControlSocket(pid, () => ended === undefined && Date.now() < deadline);
    void processes.exited.then(() => closeSync(control.fd));
    // User code is started by the control server, which raises the score of what it starts; see docs/architecture.md.
    await writeFile(`/proc/${control.pid}/oom_score_adj`, "300").catch(() => undefined);
    return {
      // The descriptor stands for the socket itself: no name in the sandbox is looked up again, so nothing
      // there can lead the engine to another socket. After the end its number may be another file's.
      connect: () => connect(`/proc/self/fd/${ended === undefined ? control.fd : -1}`),
      signal: (signal) => {
        try {
          if (ended === undefined) process.kill(control.pid, signal);
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
    processes = await start({ ...options, command: runtimeCommand });
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
  return error instanceof Error ? error.message : String(error);
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

/** The control server's process: the only child of the sandbox's first process. */
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
