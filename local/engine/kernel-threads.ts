/** The work of the kernel for pseudo terminals, Unix sockets and modules, which delays other programs. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { procStat, TICK_MS } from "../../container/sandboxd/proc-stat.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { takeFreezeTurn, whileFrozen } from "./freeze.ts";
import { numberIn, readText } from "./host-files.ts";
import { countLocalSockets } from "./socket-usage.ts";
import { sum } from "./sum.ts";
import { isOfPrincipal } from "./uses.ts";

/** A principal that uses fewer pseudo terminals keeps its sandboxes: each terminal occupies one thread of the kernel at most. */
export const MIN_TERMINALS = 8;
/** Where threads wait to open or close a terminal, as /proc/PID/wchan says. The kernel reserves the number of a terminal before that. */
const WAITS_FOR_TERMINAL = /^(?:ptmx_open|pty_close|tty_release_struct)$/;
/** Where threads wait for modprobe, or for their turn to start it: the kernel runs up to 50 at once, outside all control groups. */
const WAITS_FOR_MODPROBE = /^(?:call_usermodehelper_exec|__request_module)$/;
/** The most threads of a sandbox at which a check looks: 100 take 2 ms. Of more, it looks at a part. */
const MAX_LOOKED = 100;
/** The same for the check for modprobe, which looks at all sandboxes each second. */
const MAX_LOOKED_FOR_MODPROBE = 20;
/** A principal with fewer Unix sockets keeps its sandboxes. Measured: with 5,760 in transit, the thread used a third of a processor. */
export const MIN_LOCAL_SOCKETS = 5000;
/** How long the processor time of the kernel's threads is measured, in milliseconds. */
const THREADS_MS = 400;

/**
 * Returns a function that measures how many processors the kernel's threads for pseudo terminals and Unix sockets use. It returns
 * undefined until they were measured for a while. They also do other work, so the use counts as 0 while there are few terminals
 * and sockets.
 */
export function kernelThreadUse(sandboxes: () => EngineSandbox[]): () => Promise<number | undefined> {
  let begin: ReturnType<typeof beginUse> | undefined;
  const hasWork = () => {
    if (machineTerminals() >= MIN_TERMINALS) return true;
    return sum(sandboxes().map(countLocalSockets)) >= MIN_LOCAL_SOCKETS;
  };
  return async () => {
    if (!hasWork()) {
      begin = undefined;
      return 0;
    }
    begin ??= beginUse();
    if (performance.now() - begin.at < THREADS_MS) return undefined;
    const use = useSince(begin);
    // The next measurement begins after this check. Otherwise the use of a sandbox that this check ends would count against
    // another sandbox.
    begin = undefined;
    return use;
  };
}

/** For how long the terminals and sockets of a sandbox count as idle after a test, in milliseconds. */
const IDLE_MS = 10_000;
/** After such a test, the next one begins this many times as long as the test took later. Principals with idle ones could stop others so. */
const RESTS = 4;

/**
 * Returns a function that tests whether a sandbox's principal makes the kernel's threads work: it stops the programs of all others, and
 * measures again. Otherwise, a principal with a few busy terminals could end the sandboxes of another one, which has more idle terminals, or
 * many idle sockets.
 * @param least how many processors the threads use then at least
 */
export function threadTest(
  sandboxes: () => EngineSandbox[],
  least: number,
): (suspect: EngineSandbox) => Promise<boolean> {
  const idleUntil = new WeakMap<EngineSandbox, number>();
  let restUntil = 0;
  return async (suspect) => {
    if (performance.now() < Math.max(restUntil, idleUntil.get(suspect) ?? 0)) return false;
    const others = sandboxes().filter((sandbox) => !isOfPrincipal(sandbox, suspect));
    if (others.length === 0) return true;
    const endTurn = await takeFreezeTurn();
    if (endTurn === undefined) return false;
    const begunAt = performance.now();
    let use = 0;
    const measure = async () => {
      const begin = beginUse();
      await pause(THREADS_MS);
      use = useSince(begin);
    };
    await whileFrozen(
      others.flatMap(({ groups }) => groups),
      measure,
    ).finally(endTurn);
    if (use >= least) return true;
    const now = performance.now();
    for (const one of sandboxes()) if (isOfPrincipal(one, suspect)) idleUntil.set(one, now + IDLE_MS);
    restUntil = now + RESTS * (now - begunAt);
    return false;
  };
}

const beginUse = () => ({ at: performance.now(), ticks: kernelThreadTicks() });

/** How many processors the threads have used since then. */
function useSince({ at, ticks: before }: ReturnType<typeof beginUse>): number {
  const used = [...kernelThreadTicks()].map(([thread, ticks]) => ticks - (before.get(thread) ?? ticks));
  return (sum(used) * TICK_MS) / (performance.now() - at);
}

/** The processor time of each thread that works for pseudo terminals and Unix sockets, in ticks. In a container, they are not visible. */
function kernelThreadTicks(): Map<string, number> {
  if (readText("/proc/2/comm") !== "kthreadd\n") return new Map();
  const threads = readText("/proc/2/task/2/children").trim().split(" ");
  const workers = threads.filter((thread) => readText(`/proc/${thread}/comm`).endsWith("events_unbound\n"));
  return new Map(
    workers.map((thread) => {
      const [user = 0, system = 0] = procStat(Number(thread))?.slice(11, 13).map(Number) ?? [];
      return [thread, user + system];
    }),
  );
}

/** About how many threads wait to open or close a terminal; 0 while the machine has fewer terminals than MIN_TERMINALS. */
export function countTerminalWaiters(sandbox: EngineSandbox): number {
  return machineTerminals() < MIN_TERMINALS ? 0 : countWaiters(sandbox, WAITS_FOR_TERMINAL, MAX_LOOKED);
}

/** How many threads wait for modprobe; 0 on a machine without modules. @param isExact whether to look at all threads */
export function countModprobeWaiters(sandbox: EngineSandbox, isExact = false): number {
  if (readText("/proc/sys/kernel/modprobe").trim() === "") return 0;
  return countWaiters(sandbox, WAITS_FOR_MODPROBE, isExact ? Infinity : MAX_LOOKED_FOR_MODPROBE);
}

function countWaiters(
  { groups: [group = ""], hasEnded }: EngineSandbox,
  where: RegExp,
  maxLooked: number,
): number {
  if (hasEnded) return 0;
  // Version 1 of control groups names the list differently.
  const threads = (readText(join(group, "cgroup.threads")) || readText(join(group, "tasks"))).split("\n");
  const parts = Math.max(1, Math.ceil(threads.length / maxLooked));
  // Not always the same part, because programs could wait in the others.
  const looked = Math.floor(Math.random() * parts);
  const waits = (thread: string) => where.test(readText(`/proc/${thread}/wchan`));
  return parts * threads.filter((thread, at) => at % parts === looked && waits(thread)).length;
}

export async function countTerminals({ pid, hasEnded }: EngineSandbox): Promise<number> {
  if (pid === undefined || hasEnded) return 0;
  const names = await readdir(`/proc/${pid}/root/dev/pts`).catch(() => []);
  return names.filter((name) => /^\d+$/.test(name)).length;
}

const machineTerminals = () => numberIn("/proc/sys/kernel/pty/nr", /^(\d+)/);
