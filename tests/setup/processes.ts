/** The processes of this machine, from /proc. Zombies count as ended, because only their parent can remove them. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { attempt } from "../../container/sandboxd/file-error.ts";
import { procStat, procText } from "../../container/sandboxd/proc-stat.ts";
import { until } from "./until.ts";

export interface Process {
  pid: number;
  parent: number;
  /** Clock ticks since boot, which distinguish a process from a later one with the same id. */
  started: string;
  /** The command line with its arguments separated by spaces. */
  command: string;
}

/** Reads many files: with five hundred processes, tens of milliseconds of processor time. `tree` and `findProcess` read half as many. */
export function processes(): Process[] {
  return ids()
    .map(read)
    .filter((process) => process !== undefined);
}

/** A process whose command line begins with `beginning`. */
export function findProcess(beginning: string): Process | undefined {
  return ids()
    .filter((pid) => commandOf(pid)?.startsWith(beginning))
    .map(read)
    .find((process) => process?.command.startsWith(beginning));
}

/** `root` and its descendants, without those that have another parent now. */
export function tree(root: number): Process[] {
  const all = ids()
    .map(statusOf)
    .filter((status) => status !== undefined);
  const members = all.filter(({ pid }) => pid === root);
  for (const parent of members) members.push(...all.filter((child) => child.parent === parent.pid));
  return members.flatMap((member) => {
    const command = commandOf(member.pid);
    // A process that has ended meanwhile has none.
    return command ? [{ ...member, command }] : [];
  });
}

/**
 * `members` without the children that have their parent's command line. A program that starts another one has such a child
 * for some milliseconds, until the child executes its own program.
 */
export function withoutForkedCopies(members: readonly Process[]): Process[] {
  const byID = new Map(members.map((process) => [process.pid, process]));
  return members.filter(({ parent, command }) => byID.get(parent)?.command !== command);
}

/** Patterns of the command lines of a server's own processes. */
const SERVER_PARTS = {
  npm: /npm start|npm-cli\.js/,
  start: /cli\/npm-script\.mjs start/,
  engine: /local\/engine\/main\.ts/,
  workerd: /workerd serve/,
} as const;

export type ServerPart = keyof typeof SERVER_PARTS;

/** The process id of this part of the server. Fails unless exactly one process of `members` is this part. */
export function pidOf(part: ServerPart, members: readonly Process[]): number {
  // A shell that starts a part has the part's command in its own command line.
  const [found, ...others] = withoutForkedCopies(members).filter(
    ({ command }) => SERVER_PARTS[part].test(command) && !/^(\/bin\/)?sh /.test(command),
  );
  if (!found || others.length > 0)
    throw new Error(`${found ? others.length + 1 : 0} processes are ${part}: ${JSON.stringify(members)}`);
  return found.pid;
}

/** The first process of a process's sandbox. The sandbox ends with it. */
export function firstOfSandbox({ pid }: Pick<Process, "pid">): Process {
  const byID = new Map(processes().map((process) => [process.pid, process]));
  let at = byID.get(pid);
  while (at && at.command !== "sbx-init") at = byID.get(at.parent);
  if (!at) throw new Error(`${pid} is in no sandbox`);
  return at;
}

/** The ports of 127.0.0.1 at which this process listens. */
export function portsOf(pid: number): number[] {
  const listed = readFileSync("/proc/net/tcp", "utf8").matchAll(
    /: 0100007F:(\w{4}) 00000000:0000 0A(?: +\S+){5} +(\d+)/g,
  );
  const ports = new Map(
    Array.from(listed, ([, port = "", inode]) => [`socket:[${inode}]`, Number.parseInt(port, 16)]),
  );
  return openFiles(pid).flatMap((file) => ports.get(file) ?? []);
}

/** The path, or the kind and the inode, of each open file of a process. None if the process has ended. */
export function openFiles(pid: number): string[] {
  const descriptors = attempt(() => readdirSync(`/proc/${pid}/fd`), []);
  return descriptors.map((fd) => attempt(() => readlinkSync(`/proc/${pid}/fd/${fd}`), ""));
}

/** A number in /proc/PID/status, for example `VmRSS`, which is in KiB. NaN if the process has ended. */
export function statusNumber(pid: number | undefined, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(procText(`/proc/${pid}/status`))?.[1]);
}

/** The processes of `before` that still run, without later processes with the same id. */
export function filterRunning(before: readonly Process[]): Process[] {
  return before.filter(({ pid, started }) => read(pid)?.started === started);
}

/** Waits until all processes of `before` have ended, at most `withinMs`. Returns the ones that still run. */
export async function waitForEnd(before: readonly Process[], withinMs = 60_000): Promise<Process[]> {
  return until(() => filterRunning(before).length === 0, withinMs).then(
    () => [],
    () => filterRunning(before),
  );
}

function ids(): number[] {
  return readdirSync("/proc").map(Number).filter(Number.isInteger);
}

function read(pid: number): Process | undefined {
  const status = statusOf(pid);
  const command = commandOf(pid);
  return status === undefined || command === undefined ? undefined : { ...status, command };
}

function statusOf(pid: number): Omit<Process, "command"> | undefined {
  const [state, parent, ...rest] = procStat(pid) ?? [];
  if (state === undefined || state === "Z" || state === "X") return undefined;
  return { pid, parent: Number(parent), started: rest[17] ?? "" };
}

function commandOf(pid: number): string | undefined {
  return attempt(() => readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim(), undefined);
}

/** The directories of a process's control groups. On a machine with both versions, only those of version 1. */
export function groupsOf(pid: number | undefined): string[] {
  const lines = readFileSync(`/proc/${pid}/cgroup`, "utf8").matchAll(/^\d+:(.*):(.*)$/gm);
  return Array.from(lines, ([, controllers = "", path = ""]) => join("/sys/fs/cgroup", controllers, path));
}

/**
 * A file in the control groups of a process.
 * @param names the file's name in version 1 and in version 2
 * @param parent `..` for the groups that contain these groups
 */
function filesInGroups(pid: number, names: readonly [string, string], parent = ""): string[] {
  const different = [...new Set(names)];
  const files = groupsOf(pid).flatMap((group) => different.map((name) => join(group, parent, name)));
  return files.filter((file) => existsSync(file));
}

/** The values of these files. */
export const valuesInGroups = (...of: Parameters<typeof filesInGroups>): number[] =>
  filesInGroups(...of).map((file) => parseInt(readFileSync(file, "utf8")));
