/**
 * No process of a server survives it, however the server ends. killed.test.ts and clients.test.ts of tests/faults show this for
 * SIGTERM and for a server whose engine or workerd was killed. start.test.ts shows it for a server whose first program was killed.
 */
import { randomInt } from "node:crypto";
import { afterAll, describe, expect, it } from "vitest";
import { type Process, pidOf, processes, waitForEnd, tree } from "../setup/processes.ts";
import { type Server, type ServerOptions, startServer } from "../setup/server.ts";
import { callTool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";

/** How long the processes may take to end, on a busy machine, in milliseconds. */
const GONE_WITHIN = 15_000;

interface Busy {
  server: Server;
  /** All processes of the server and its sandboxes. */
  all: Process[];
}

const started: Server[] = [];

afterAll(async () => {
  await Promise.all(started.map((server) => server.stop()));
});

/** A server with a sandbox in which processes run in the foreground, in the background and detached. */
async function busyServer(options: ServerOptions = {}): Promise<Busy> {
  const server = await startServer(options);
  started.push(server);
  const marker = `86400.${randomInt(1e9)}`;
  const command = `sleep ${marker} & nohup sleep ${marker} >/dev/null 2>&1 & setsid sleep ${marker} >/dev/null 2>&1 &`;
  await callTool(server.url, "run_command", { command });
  void callTool(server.url, "run_command", { command: `sleep ${marker}`, session: "other" }).catch(
    () => undefined,
  );
  const findSleepers = () => processes().filter(({ command: line }) => line === `sleep ${marker}`);
  await until(() => findSleepers().length === 4);

  const descendants = tree(server.child.pid ?? 0);
  const detached = findSleepers().filter(({ pid }) => !descendants.some((other) => other.pid === pid));
  const all = [...descendants, ...detached];
  return { server, all };
}

// Each test has its own server.
describe.concurrent("a server after SIGKILL", () => {
  it("leaves no process if npm was killed", async () => {
    const { all } = await busyServer({ asUser: true });
    process.kill(pidOf("npm", all), "SIGKILL");
    expect(await waitForEnd(all, GONE_WITHIN)).toEqual([]);
  });

  it("leaves no process if it ran without isolation", async () => {
    const { all } = await busyServer({ flags: ["--isolation", "none"] });
    process.kill(pidOf("start", all), "SIGKILL");
    expect(await waitForEnd(all, GONE_WITHIN)).toEqual([]);
  });
});

describe.concurrent("a server after Ctrl-C", () => {
  it("ends its prepared shells, also without isolation and control groups", async () => {
    // bwrap makes the server's user a normal user. After its first command, each session has a prepared shell.
    const mounts = "--tmpfs /sys/fs/cgroup --tmpfs /workspace --tmpfs /var/lib --tmpfs /opt";
    const within = `bwrap --unshare-user --uid 1000 --gid 1000 --dev-bind / / ${mounts}`.split(" ");
    const server = await startServer({ flags: ["--isolation", "none"], ownGroup: true, within });
    started.push(server);
    for (const command of ["cd /tmp", "pwd"]) await callTool(server.url, "run_command", { command });
    const ready = () => tree(server.child.pid ?? 0).filter(({ command }) => command.startsWith("sbx-keep"));
    await until(() => ready().length > 1);
    const all = tree(server.child.pid ?? 0);
    process.kill(-(server.child.pid ?? Number.NaN), "SIGINT");
    await server.exited;
    const remaining = await waitForEnd(all, GONE_WITHIN);
    for (const { pid } of remaining) process.kill(pid, "SIGKILL");
    expect(remaining).toEqual([]);
  });

  it("ends without an unexpected error, although the terminal sends SIGINT to every process of the foreground group", async () => {
    const { server, all } = await busyServer({ ownGroup: true, asUser: true });
    process.kill(-(server.child.pid ?? Number.NaN), "SIGINT");
    await server.exited;
    expect(await waitForEnd(all, GONE_WITHIN)).toEqual([]);
    expect(server.stderr()).not.toMatch(/unexpected/i);
  });
});
