/** `--isolation none`: sandboxd and the control server as plain processes. Nothing is isolated; see `NOT_ISOLATED`. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, lstatSync, readlinkSync } from "node:fs";
import { mkdir, rm, symlink } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { attempt } from "../../container/sandboxd/file-error.ts";
import { quote } from "../../src/shared/text.ts";
import { waitAtMost } from "../../src/shared/timers.ts";
import { BUNDLE_FILE } from "../runtime/trust.ts";
import type { View } from "./bubblewrap.ts";
import type { RunningProcess } from "./launch.ts";
import { collectOutput, exitOf, joinGroupsScript } from "./sandbox-processes.ts";
import { MACHINE, START_PROBLEMS } from "./texts.ts";

interface UnisolatedOptions {
  directory: string;
  view: View;
  env: Record<string, string>;
  groups: string[];
  onOutput: (text: string) => void;
}

/**
 * The variable that marks a sandbox's processes. sandboxd passes it on to commands (`NO_ENV` in
 * container/sandboxd/run-processes.ts).
 */
const marker = "SANDBOX_MCP_BARE";

/**
 * The reaper's stdin closes when the engine ends the sandbox or dies. The reaper then kills all processes in the sandbox's
 * control groups or with the marker.
 */
const reaper = [
  'trap "" INT TERM HUP',
  "cat >/dev/null",
  "marker=$1; shift; attempt=0",
  'while [ "$attempt" -lt 100 ]; do',
  "  found=",
  '  for group in "$@"; do found="$found $(cat "$group/cgroup.procs" 2>/dev/null)"; done',
  '  for file in $(grep -lzxF -e "$marker" /proc/[0-9]*/environ 2>/dev/null); do',
  '    file=${file#/proc/}; found="$found ${file%/environ}"',
  "  done",
  "  found=$(echo $found)",
  '  [ -n "$found" ] || exit 0',
  "  kill -9 $found 2>/dev/null",
  "  attempt=$((attempt + 1))",
  "done",
].join("\n");

const reapMs = 5000;

export async function startUnisolated(options: UnisolatedOptions): Promise<RunningProcess> {
  const { directory, view } = options;
  const home = join(directory, "root");
  const bin = join(directory, "bin");
  const temporary = join(directory, "tmp");
  for (const path of [home, bin, temporary]) await mkdir(path, { recursive: true });
  await symlink(view.toolchain.node, join(bin, "node"));
  for (const { name, path } of view.toolchain.agents) await symlink(path, join(bin, name));
  const problem = await makePlaces(view.container);
  if (problem !== undefined) throw new Error(problem);

  const sockets = await shortenPath(directory);
  const control = join(sockets, "control.sock");
  const env = useHostVariables({
    ...options.env,
    HOME: home,
    TMPDIR: temporary,
    [marker]: directory,
    SANDBOXD_ROOT: join(directory, "sandboxd"),
    SANDBOXD_TOKEN_FILE: join(directory, "token"),
  });
  env.PATH = [bin, process.env.PATH ?? "/usr/bin:/bin", view.fetchedAgents].filter(Boolean).join(":");
  const sandboxdSocket = join(sockets, "sandboxd.sock");
  const node = [view.toolchain.node, ...view.toolchain.nodeOptions];
  const sandboxd = [...node, view.sandboxd, "--socket", sandboxdSocket];
  const server = [...node, view.control, "--socket", control, "--kernels", join(view.runtime, "kernels")];
  const init = ["/usr/bin/perl", join(view.container, "init.pl")];
  const program = [...init, ...sandboxd, "+++", ...server];
  const child = spawn("/bin/sh", ["-c", joinGroupsScript(), "sandbox", ...options.groups, "--", ...program], {
    cwd: "/workspace",
    detached: true,
    env,
    stdio: ["pipe", "pipe", "pipe"],
  });
  child.stdin.on("error", () => undefined);
  const reaperProcess = spawn(
    "/bin/sh",
    ["-c", reaper, "reaper", `${marker}=${directory}`, ...options.groups],
    {
      detached: true,
      env: { PATH: "/usr/bin:/bin" },
      stdio: ["pipe", "ignore", "ignore"],
    },
  );
  reaperProcess.stdin.on("error", () => undefined);
  // The reaper may end early: without isolation, code in the sandbox can kill it.
  const reaped = exitOf(reaperProcess);

  const output = collectOutput(child, options.onOutput);
  const exited = exitOf(child).then(async (report) => {
    reaperProcess.stdin.end();
    if ((await waitAtMost(reapMs, reaped)) === undefined) reaperProcess.kill("SIGKILL");
    await reaped;
    if (sockets !== directory) await rm(sockets, { force: true });
    return report;
  });
  const kill = async () => {
    child.kill("SIGKILL");
    await exited;
  };
  const deadline = Date.now() + 30_000;
  while (!(await canConnect(control))) {
    if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
      await kill();
      throw new Error(MACHINE.notStarted(output().trim() || START_PROBLEMS.noControl));
    }
    await pause(10);
  }
  return {
    egress: [],
    connect: async (to) => {
      const socket = connect(to === "control" ? control : sandboxdSocket);
      await once(socket, "connect");
      return socket;
    },
    signal: (signal) => child.kill(signal),
    kill,
    exited,
  };
}

async function canConnect(path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => (socket.destroy(), resolve(true)));
    socket.once("error", () => resolve(false));
  });
}

const PLACES = ["/workspace", "/var/lib/sandbox-mcp"];
const SCRIPTS = "/opt/sandbox-mcp";

/**
 * Creates the directories and the link that sandboxes without isolation need. New directories are closed to other users of the machine.
 * @param container the repository's directory `container`
 * @returns undefined if they exist, else a sentence with a command for the administrator
 */
export async function makePlaces(container: string): Promise<string | undefined> {
  for (const path of PLACES) await mkdir(path, { recursive: true, mode: 0o700 }).catch(() => undefined);
  const hasScripts = () => {
    const found = lstatSync(SCRIPTS, { throwIfNoEntry: false });
    // A directory that is not a link is part of the image.
    return found?.isSymbolicLink() ? readlinkSync(SCRIPTS) === container : found?.isDirectory() === true;
  };
  if (!hasScripts()) {
    // The link leads to another clone of the repository, perhaps a deleted one.
    await rm(SCRIPTS, { force: true }).catch(() => undefined);
    await symlink(container, SCRIPTS).catch(() => undefined);
  }
  if (PLACES.every(isWritable) && hasScripts()) return undefined;
  const owner = process.getuid?.() ?? 0;
  return MACHINE.noPlaces(
    PLACES,
    SCRIPTS,
    `sudo install -d -m 700 -o ${owner} ${PLACES.join(" ")} && sudo ln -sfnT ${quote(container)} ${SCRIPTS}`,
  );
}

const isWritable = (path: string) =>
  attempt(() => (accessSync(path, constants.W_OK | constants.X_OK), true), false);

/** The longest socket path in Linux, in bytes. The path of a clone or home directory can be longer. */
const SOCKET_PATH_BYTES = 107;

async function shortenPath(directory: string): Promise<string> {
  if (Buffer.byteLength(directory) + "/sandboxd.sock".length <= SOCKET_PATH_BYTES) return directory;
  const link = join(tmpdir(), `sandbox-mcp-${basename(directory)}`);
  await symlink(directory, link);
  return link;
}

/** Replaces variables for the egress proxy and for generated files with the host's own, because only isolated sandboxes have them. */
function useHostVariables(env: Record<string, string>): Record<string, string> {
  const kept = Object.entries(env).filter(
    ([name, value]) =>
      !/^((https?|no)_proxy|npm_config_.*|NODE_USE_ENV_PROXY|NODE_OPTIONS|VIRTUAL_ENV)$/i.test(name) &&
      value !== BUNDLE_FILE,
  );
  const proxies = Object.entries(process.env).filter(([name]) =>
    /^((https?|no)_proxy|.*_CERTS?)$/i.test(name),
  );
  return {
    ...Object.fromEntries(proxies.map(([name, value]) => [name, value ?? ""])),
    ...Object.fromEntries(kept),
  };
}
