/** Detects that the parent process (npm, or `sandbox-mcp stdio`) has ended without passing on a signal. */
import { procStat } from "../container/sandboxd/proc-stat.ts";
import { readText } from "../local/engine/host-files.ts";
import { identify, isAlive } from "../local/engine/identity.ts";

/** A server with this variable ends when its parent process ends. */
export const WITH_PARENT = "SANDBOX_MCP_WITH_PARENT";

/** How often the processes are checked, in milliseconds. */
const CHECK_MS = 200;

/**
 * Calls `onGone` once when the parent process has ended. If the parent is a shell, also when the shell's parent (npm) has ended.
 * Does nothing if neither npm started this process nor WITH_PARENT is set: a background server should survive its shell.
 */
export function watchNPM(env: NodeJS.ProcessEnv, onGone: () => void): void {
  if (env.npm_lifecycle_event === undefined && env[WITH_PARENT] === undefined) return;
  const parent = process.ppid;
  const isShell = /^((a|ba|da|k|z)?sh|busybox)$/.test(readText(`/proc/${parent}/comm`).trim());
  const pids = isShell ? [parent, Number(procStat(parent)?.[1])] : [parent];
  const watched = pids.flatMap((pid) => identify(pid) ?? []);
  const timer = setInterval(() => {
    if (watched.every(isAlive)) return;
    clearInterval(timer);
    onGone();
  }, CHECK_MS);
  timer.unref();
}
