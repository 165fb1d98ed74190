/** A server as a user starts it, and its processes. */
import { randomInt } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inject } from "vitest";
import { firstOfSandbox, pidOf, type Process, processes, type ServerPart, tree } from "../setup/processes.ts";
import { type Server, type ServerOptions, startServer } from "../setup/server.ts";
import type { Result } from "../setup/mcp-client.ts";
import { tool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";

/** The long form runs more rounds, and includes tests that take minutes. */
export const LONG = inject("isLong");

/** A command that starts background processes, which continue after its end. */
export const START_SLEEPERS =
  "sleep 86400 & nohup sleep 86400 >/dev/null 2>&1 & setsid sleep 86400 >/dev/null 2>&1 &";

/** The processes of `START_SLEEPERS`. */
export const sleepersIn = (members: readonly Process[]) =>
  members.filter(({ command }) => command === "sleep 86400");

interface Calls {
  call(name: string, args?: Record<string, unknown>, signal?: AbortSignal): Promise<Result>;
  /** Runs a command that must succeed. Returns its output. */
  sh(command: string, more?: Record<string, unknown>): Promise<string>;
  /** The host's process id of a sandbox's first process. The sandbox ends with it. */
  firstPID(sandbox: string): Promise<number>;
}

export interface FaultServer extends Calls {
  readonly server: Server;
  pid(part: ServerPart): number;
  all(): Process[];
  /** Waits until the server has ended, and starts it again with the same state. */
  restart(): Promise<void>;
  /** Stops the server, and removes its state. */
  close(): Promise<void>;
}

/** Calls of the server at `url()`. Errors show the end of `log()`. */
export function callsOf(url: () => string, log = () => ""): Calls {
  const calls: Calls = {
    call: (name, args = {}, signal) => tool(url(), name, args, { signal }),
    async sh(command, more = {}) {
      let answer = await calls.call("run_command", { command, ...more });
      // On a busy machine, the start of a sandbox can take longer than a call waits.
      for (let waits = 0; waits < 2 && answer.structured.state === "running"; waits++)
        answer = await calls.call("get_result", { id: answer.structured.id, wait_seconds: 50 });
      if (answer.structured.state !== "succeeded")
        throw new Error(`${command}: ${answer.text}\n${log().slice(-3000)}`);
      return String(answer.structured.stdout);
    },
    async firstPID(sandbox) {
      const marker = `86400.${randomInt(1e9)}`;
      await calls.sh(`sleep ${marker} >/dev/null 2>&1 & echo $!`, {
        sandbox,
        session: "first-process",
      });
      // The shell reports its child before the child has become sleep.
      const sleeper = await until(() => processes().find(({ command }) => command === `sleep ${marker}`));
      const first = firstOfSandbox(sleeper);
      process.kill(sleeper.pid, "SIGKILL");
      return first.pid;
    },
  };
  return calls;
}

/** Starts a server with a new state directory. The caller closes it. */
export async function startFaultServer(options: Pick<ServerOptions, "env"> = {}): Promise<FaultServer> {
  const directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-faults-"));
  const start = () =>
    startServer({
      ...options,
      flags: [...(process.env.VERBOSE ? ["--verbose"] : []), "--state-dir", directory, "--network", "none"],
    });
  let server = await start();
  const faultServer: FaultServer = {
    get server() {
      return server;
    },
    ...callsOf(
      () => server.url,
      () => server.stderr(),
    ),
    all: () => tree(server.child.pid ?? Number.NaN),
    pid: (part) => pidOf(part, faultServer.all()),
    async close() {
      await server.stop();
      rmSync(directory, { recursive: true, force: true });
    },
    async restart() {
      await server.exited;
      server = await start();
    },
  };
  return faultServer;
}
