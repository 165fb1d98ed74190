/** Detects that the parent process, npm or a bridge, ended without passing on a signal. */
import { readFileSync } from "node:fs";

/** A server with this variable ends when its parent process ends. */
export const WITH_PARENT = "SANDBOX_MCP_WITH_PARENT";

/**
 * Calls `onGone` once when npm, or the shell between npm and this process, has ended. Does nothing without npm, unless WITH_PARENT
 * is set: a background server should survive its shell.
 */
export function watchNPM(env: NodeJS.ProcessEnv, onGone: () => void, everyMs = 200): void {
  if (env.npm_lifecycle_event === undefined && env[WITH_PARENT] === undefined) return;
  const chain = [describe(process.ppid)];
  const parent = chain[0];
  if (parent && /^(a|ba|da|k|z)?sh$|^busybox$/.test(parent.command)) chain.push(describe(parent.parent));
  const watched = chain.filter((entry) => entry !== undefined);
  const timer = setInterval(() => {
    if (watched.every(({ pid, started }) => describe(pid)?.started === started)) return;
    clearInterval(timer);
    onGone();
  }, everyMs);
  timer.unref();
}

interface Ancestor {
  pid: number;
  command: string;
  parent: number;
  /** The process's start, in clock ticks since boot. It distinguishes the process from a later one with the same id. */
  started: string;
}

/** A running process, from /proc/<pid>/stat (proc_pid_stat(5)); undefined if it has ended. */
function describe(pid: number): Ancestor | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const command = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
    const [state, parent, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (state === "Z" || state === "X") return undefined;
    return { pid, command, parent: Number(parent), started: rest[17] ?? "" };
  } catch {
    return undefined;
  }
}
