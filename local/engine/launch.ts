/** Starts a sandbox with its two servers, the control server and sandboxd, which connect to the engine. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import type { Server, Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import type { OwnServer } from "../../container/sandboxd/engine-link.ts";
import { procStat } from "../../container/sandboxd/proc-stat.ts";
import type { ExitReport } from "../platform/engine-protocol.ts";
import { controlProgram, kernelsDirectory, keyPlace, nodeProgram, sandboxdProgram } from "./bubblewrap.ts";
import { superviseCommand } from "./init.ts";
import { start, type Processes, type StartOptions } from "./sandbox-processes.ts";
import { ServerConnections } from "./server-connections.ts";
import type { Toolchain } from "./toolchain.ts";
import { messageOf, quote } from "../../src/shared/text.ts";
import { attempt } from "../../container/sandboxd/file-error.ts";
import { MACHINE, START_PROBLEMS } from "./texts.ts";

export interface RunningProcess {
  pid?: number;
  /**
   * Opens a connection to a server.
   * @throws Error if the server cannot be reached, the sandbox has ended, or `aborted` is aborted
   */
  connect(to: OwnServer, aborted?: AbortSignal): Promise<Socket>;
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
  nodeCommand(toolchain, controlProgram, "--engine-key", keyPlace, "--kernels", kernelsDirectory);

const sandboxdCommand = (toolchain: Toolchain): string[] =>
  nodeCommand(toolchain, sandboxdProgram, "--engine-key", keyPlace);

/**
 * Loads both programs, which fills the compile cache. The control server ends with an error, because it gets no directory of
 * kernels. sandboxd writes a list of files and ends with 0, which is the command's exit status.
 */
export const loadCommand = (toolchain: Toolchain): string[] => {
  const control = nodeCommand(toolchain, controlProgram);
  const sandboxd = nodeCommand(toolchain, sandboxdProgram, "--write-base", "/tmp/base.list");
  return ["/bin/sh", "-c", [control, sandboxd].map((words) => words.map(quote).join(" ")).join("; ")];
};

const readyTimeoutMs = 30_000;

/**
 * Waits until the control server has connected.
 * @param key the content of `keyPlace`
 * @throws Error with the output if the sandbox does not start or hangs
 */
export async function launch(options: LaunchOptions, key: string): Promise<RunningProcess> {
  const { processes, pid } = await begin(options);
  const deadline = Date.now() + readyTimeoutMs;
  let ended: ExitReport | undefined;
  const connections = new ServerConnections(key);
  const exited = processes.exited.then((report) => {
    ended = report;
    connections.close();
    return report;
  });
  try {
    const isActive = () => ended === undefined && Date.now() < deadline;
    let egress: readonly Server[] = [];
    const connected = processes.listeners.then(async (listeners) => {
      egress = listeners.egress;
      connections.accept(listeners.own);
      return await connections.take("control", { waitMs: readyTimeoutMs });
    });
    connected.catch(() => undefined);
    const control = await waitForControl(pid, isActive, connected);
    // Kernels inherit this score. Commands keep the higher score of the sandbox, so Linux ends them first: docs/reference/local.md.
    await writeFile(`/proc/${control}/oom_score_adj`, "300").catch(() => undefined);
    return {
      pid,
      egress,
      connect: async (to, aborted) => await connections.take(to, { aborted }),
      signal: (signal) => {
        // Fails if the first process has ended. Then the sandbox ends, too.
        if (ended === undefined) attempt(() => process.kill(pid, signal), false);
      },
      kill: processes.kill,
      exited,
    };
  } catch (error) {
    await processes.kill();
    // The control server may have handed them over before the failure. `connections` closes the third listener.
    void processes.listeners.then(({ egress }) => egress.forEach((listener) => listener.close()));
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
  return processes?.output().trim() || messageOf(error);
}

/**
 * Waits until the control server has connected. At that time, no user code has run, and the server has handed its listeners to the
 * engine. Returns the server's process id.
 */
async function waitForControl(
  first: number,
  isActive: () => boolean,
  connected: Promise<Socket>,
): Promise<number | undefined> {
  let server: number | undefined;
  const isConnected = connected.then((socket) => (socket.destroy(), true));
  while (isActive()) {
    server ??= childOf(first);
    if (await Promise.race([isConnected, pause(50)])) return server ?? childOf(first);
    // The control server has ended. After a restart it would end again.
    if (server !== undefined && !existsSync(`/proc/${server}`)) break;
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
