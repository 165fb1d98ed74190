/** Starts a program under bubblewrap as the first process of its own namespaces, and ends all processes in them. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import type { Server, Socket } from "node:net";
import type { Readable, Writable } from "node:stream";
import { finished } from "node:stream/promises";
import { waitAtMost } from "../../src/shared/timers.ts";
import type { ExitReport } from "../platform/engine-protocol.ts";
import { bubblewrapArguments, readChildPID, type Mount } from "./bubblewrap.ts";
import { confine } from "./confine.ts";
import { endProcess, identify, kill, type Identity } from "./identity.ts";
import { initCommand, initGreeting, initScript, userLimits } from "./init.ts";
import { writeMaps } from "./ids.ts";
import { type HostIDs, requireMounted } from "./host-directories.ts";
import { type Limits, sizesFor } from "./limits.ts";
import { canDumpOutside, seccompFilter } from "./seccomp.ts";
import type { MountNamespace } from "./mount-namespace.ts";
import type { Toolchain } from "./toolchain.ts";
import { systemPath } from "./host-programs.ts";
import { START_PROBLEMS } from "./texts.ts";

export interface StartOptions {
  mounts: Mount[];
  toolchain: Toolchain;
  limits: Limits;
  env: Record<string, string>;
  groups: string[];
  supported: ReadonlySet<string>;
  /** For an engine running as root: bubblewrap's mount namespace, and the sandbox's ids. */
  unprivileged: { mountNamespace: MountNamespace; ids: HostIDs } | undefined;
  command: string[];
  record?: string;
  onOutput: (text: string) => void;
}

interface Listeners {
  /** For the connections of the sandbox's own servers. */
  own: Server;
  egress: readonly Server[];
}

export interface Processes {
  /** The host's process id of the sandbox's first process. Rejects if this process ends before its command begins. */
  pid: Promise<number>;
  /** Resolves when the control server has handed over its listeners (local/runtime/tcp.ts), and never settles otherwise. */
  listeners: Promise<Listeners>;
  kill(): Promise<void>;
  exited: Promise<ExitReport>;
  output(): string;
}

/**
 * A script that runs on the host before the sandbox. It joins the control groups, and raises the OOM score, so that the kernel
 * kills sandboxes first when memory runs out. If the engine has CAP_SYS_RESOURCE, programs in the sandbox cannot lower the score
 * again. The exit status is 126 if the script cannot join a group.
 * @param before a command of the script just before the program
 */
export const joinGroupsScript = (before = "") =>
  [
    "echo 500 2>/dev/null >/proc/self/oom_score_adj",
    'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit 126; shift; done',
    "shift",
    before,
    'exec "$@"',
  ].join("\n");

/**
 * Makes standard output and error a pipe, which `cat` copies to the engine. Node gives a program sockets, over which code in the
 * sandbox could send the engine descriptors of files (container/sandboxd/engine-link.ts).
 */
const pipeOutput = "exec > >(exec cat 3>&- 4>&- 5>&- 6>&- 7>&- 8>&-) 2>&1";

/** How long output may follow the end of bubblewrap, in milliseconds. */
const outputMs = 500;
/** How long bubblewrap may take to notice the end of the sandbox's first process, in milliseconds. */
const noticeMs = 2000;

export async function start(options: StartOptions): Promise<Processes> {
  const { limits, env, supported, toolchain, unprivileged } = options;
  const filter = seccompFilter({
    ids: unprivileged?.ids.count ?? 1,
    hasHostDirectory: options.mounts.some(({ isWritable }) => isWritable === true),
  });
  const view = await unprivileged?.mountNamespace.open(options.mounts, unprivileged.ids);
  const sizes = sizesFor(limits.diskBytes);
  const mounts = view?.translate(options.mounts) ?? options.mounts;
  const inner = bubblewrapArguments(mounts, toolchain, sizes, env, supported, filter !== undefined);
  if (filter !== undefined) inner.push("--seccomp", "5");
  // The Worker's variables may be secrets, so they go through a pipe: anyone can read a command line.
  const own = [
    "--args",
    "4",
    "--info-fd",
    "3",
    ...(unprivileged === undefined ? [] : ["--userns-block-fd", "8"]),
  ];
  // A limit of one byte, unlike zero, also keeps the kernel from piping core dumps to a program outside the sandbox (core(5)).
  const noCores = canDumpOutside() ? ["prlimit", "--core=1:1", "--"] : [];
  const argv = [...noCores, ...(view?.enter ?? []), "bwrap", ...own, "--", ...initCommand];
  // bubblewrap runs with these limits as the user that is root in the sandbox, so they apply to all users of the sandbox together.
  // With a socket as its input, bash would read the user's startup files: --norc prevents that.
  const limitsScript = unprivileged === undefined ? "" : `${userLimits(limits)}\n`;
  const child = spawn(
    "/bin/bash",
    [
      "--norc",
      "-c",
      limitsScript + joinGroupsScript(pipeOutput),
      "sandbox",
      ...options.groups,
      "--",
      ...argv,
    ],
    {
      cwd: "/",
      detached: true,
      env: { PATH: systemPath() },
      stdio: ["pipe", "pipe", "pipe", "pipe", "pipe", "pipe", "pipe", "ipc", "pipe"],
    },
  );
  // Without free descriptors or processes there are no streams, only an event. Node throws the error of an event without a listener.
  if (child.pid === undefined) throw (await once(child, "error"))[0];
  const listeners = receiveListeners(child);
  const [stdin, , , info, args, seccomp, complete, , mapped]: readonly ChildStream[] = child.stdio;
  for (const stream of [stdin, info, args, seccomp, complete, mapped]) stream?.on("error", () => undefined);
  child.stdin?.write(initGreeting);
  write(args, inner.map((argument) => `${argument}\0`).join(""));
  write(seccomp, filter ?? Buffer.alloc(0));

  const output = collectOutput(child, options.onOutput);
  let first: Identity | undefined;
  const exited = settle(child, () => first);
  // Once the sandbox's first process has started, bubblewrap ends when the engine ends, and the sandbox ends when bubblewrap ends.
  const pid = readChildPID(info, exited).then(async (number) => {
    first = identify(number);
    if (first !== undefined && options.record !== undefined) await writeFile(options.record, first);
    // If the engine is killed here, bubblewrap's child waits forever. The next engine finds it by its control group and ends it.
    if (unprivileged !== undefined) await writeMaps(number, unprivileged.ids);
    // bubblewrap waits until this pipe closes.
    write(mapped, "");
    await waitUntilReady(complete, exited);
    await Promise.all(options.mounts.map((mount) => requireMounted(number, mount)));
    await confine(number);
    write(stdin, initScript(options.command));
    return number;
  });
  void pid.catch(() => undefined).then(() => view?.release());
  return {
    pid,
    exited,
    listeners,
    output,
    kill: async () => {
      if (first === undefined) child.kill("SIGKILL");
      else kill(first);
      if ((await waitAtMost(noticeMs, exited)) === undefined) child.kill("SIGKILL");
      await exited;
    },
  };
}

/** Closes the channel after the last listener: later messages could come from user code that has replaced the control server. */
async function receiveListeners(child: ChildProcess): Promise<Listeners> {
  const servers: Server[] = [];
  return await new Promise((resolve) => {
    child.on("message", (_port, handle) => {
      if (handle === undefined || !("listen" in handle)) return;
      // Node accepts connections at once. sandboxd may have opened them already, and tries again.
      handle.on("connection", (socket: Socket) => socket.destroy());
      servers.push(handle);
      const [own, proxy, hosts] = servers;
      if (own === undefined || proxy === undefined || hosts === undefined || !child.connected) return;
      child.disconnect();
      resolve({ own, egress: [proxy, hosts] });
    });
  });
}

/** Passes on a program's output. @returns a function that returns the last part of the output */
export function collectOutput(child: ChildProcess, onOutput: (text: string) => void): () => string {
  let printed = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding("utf8").on("data", (text: string) => {
      printed = (printed + text).slice(-4096);
      onOutput(text);
    });
  return () => printed;
}

export async function exitOf(child: ChildProcess): Promise<ExitReport> {
  return await new Promise((resolve) => {
    child.once("error", (error) => resolve({ exitCode: 127, reason: error.message }));
    child.once("exit", (code, signal) => resolve({ exitCode: code ?? 137, reason: signal ?? "exit" }));
  });
}

/** Settles when bubblewrap and the sandbox's first process have ended. Waits at most `outputMs` for a pipe that stays open. */
async function settle(child: ChildProcess, first: () => Identity | undefined): Promise<ExitReport> {
  // The child emits no "close" event after the engine has closed the channel.
  const printed = [child.stdout, child.stderr].flatMap((stream) => (stream === null ? [] : finished(stream)));
  const closed = Promise.allSettled(printed);
  const report = await exitOf(child);
  const identity = first();
  if (identity !== undefined) await endProcess(identity);
  await waitAtMost(outputMs, closed);
  for (const stream of child.stdio) stream?.destroy();
  return report;
}

async function waitUntilReady(stream: ChildStream, ended: Promise<unknown>): Promise<void> {
  const word = new Promise((resolve) => stream?.once("data", resolve));
  await Promise.race([word, ended.then(() => Promise.reject(new Error(START_PROBLEMS.bubblewrapFailed)))]);
}

function write(stream: ChildStream, data: string | Buffer): void {
  if (stream !== null && stream !== undefined && "end" in stream) stream.end(data);
}

type ChildStream = Readable | Writable | null | undefined;
