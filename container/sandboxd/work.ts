/** Background activity in a sandbox: its programs' processor time and connections. */
import { countExternalConnections } from "./listening.ts";
import { procText } from "./proc-stat.ts";
import { ownProcesses, processorTimes } from "./run-processes.ts";

export function measureWork(): string {
  const times = processorTimes(ownProcesses());
  let written = 0;
  for (const id of times.keys()) {
    // If the process has ended, its parent's processor time includes the time of this process.
    const counts = procText(`/proc/${Number.parseInt(id, 10)}/io`);
    written += Number(/^wchar: (\d+)/m.exec(counts)?.[1] ?? 0);
  }
  return JSON.stringify([written, ...times]);
}

let before = new Map<string, number>();
let measuredAt = 0;

/** The work since the last call. The first call returns an elapsed time of zero. */
export function workSinceLastCall(): { cpuMs: number; overMs: number; connections: number } {
  const excluded = ownProcesses();
  const now = performance.now();
  const times = processorTimes(excluded);
  let cpuMs = 0;
  for (const [id, ms] of times) cpuMs += Math.max(0, ms - (before.get(id) ?? 0));
  const overMs = measuredAt === 0 ? 0 : Math.round(now - measuredAt);
  before = times;
  measuredAt = now;
  return { cpuMs, overMs, connections: countExternalConnections(excluded) };
}
