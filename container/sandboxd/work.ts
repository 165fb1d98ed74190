/** Background activity in a sandbox: its programs' processor time and connections. */
import { connectionsBetween } from "./listening.ts";
import { ownProcesses, processorTimes } from "./run-processes.ts";

let before = new Map<string, number>();
let lookedAt = 0;

/** Since the last call; zero elapsed time at the first one. */
export function workSinceLastLook(): { cpuMs: number; overMs: number; connections: number } {
  const own = ownProcesses();
  const now = performance.now();
  const times = processorTimes(own);
  let cpuMs = 0;
  for (const [id, ms] of times) cpuMs += Math.max(0, ms - (before.get(id) ?? 0));
  const overMs = lookedAt === 0 ? 0 : Math.round(now - lookedAt);
  before = times;
  lookedAt = now;
  return { cpuMs, overMs, connections: connectionsBetween(own) };
}
