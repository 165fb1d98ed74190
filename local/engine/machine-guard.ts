/**
 * Ends a sandbox that exhausts a resource of the machine for which the kernel has no limit per sandbox:
 * - Memory of all sandboxes: the kernel would end the largest process, and spare a sandbox with many small ones.
 * - Open files: files in transit in sockets, or mapped into memory, do not count as descriptors of a process.
 * - Memory of TCP: data in connections that were not accepted yet counts in no control group.
 * - Closed connections with unsent data: beyond the machine's limit, the kernel resets connections of others when they close.
 * - Memory of the kernel that counts in no control group: `kernel-memory-guard.ts`.
 *
 * The guard ends the largest sandbox of the principal that uses most of the resource. If it chose the largest sandbox of all, a
 * principal with several slightly smaller sandboxes could make it end a neighbour's.
 */
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { guardKernelMemory } from "./kernel-memory-guard.ts";
import { kernelMemoryOf, memoryOf, type Limits } from "./limits.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { STOPPED_BECAUSE } from "./texts.ts";

const CHECK_INTERVAL_MS = 250;
/**
 * Above this share of its limit, a pool is checked often: the amount that sandboxes take between two checks must fit into the
 * rest.
 */
const NEAR = 0.75;
const NEAR_INTERVAL_MS = 20;
const END_TIMEOUT_MS = 5000;
const USED_UP = 0.9;

interface Pool {
  used: () => Promise<number>;
  limit: number;
  usedBy: (sandbox: EngineSandbox) => Promise<number>;
  /** A sandbox that uses less than this is not ended, because another program of the machine must be using most. */
  least: (used: number) => number;
  why: string;
}

const BLAMED_SHARE = 1 / 20;
/** The kernel's memory for an open file: `filp` in /proc/slabinfo, 192 to 256 bytes on 64 bits. */
const FILE_BYTES = 192;
const IDLE_BYTES = 8 * 1024 * 1024;
/** The most memory of one end of a TCP connection: its two buffers, which confine.ts limits. */
const CONNECTION_BYTES = 256 * 1024;

/** The most bytes read of a sandbox's list of TCP sockets: 7,000. If all of them listen, the sandbox counts as the largest. */
const MAX_LISTENER_LIST_BYTES = 1024 * 1024;
/** A listener in that list: number, local and remote address, the state TCP_LISTEN, send queue and receive queue. */
const TCP_LISTENER = /^ *\d+: \w+:\w+ \w+:\w+ 0A \w+:(\w+) /;

export function guardMachine(groups: string[], limits: Limits, sandboxes: () => EngineSandbox[]): () => void {
  // If each controller has a separate group, only the memory controller's group has a count.
  const countOf = (count: typeof memoryOf) => async (of: readonly string[]) =>
    Math.max(0, ...(await Promise.all(of.map(count))));
  const pools: Pool[] = [
    {
      used: () => numberIn("/proc/sys/fs/file-nr", /^(\d+)/),
      limit: limits.openFilesOfMachine,
      usedBy: (sandbox) => countOf(kernelMemoryOf)(sandbox.groups),
      least: (used) => IDLE_BYTES + used * BLAMED_SHARE * FILE_BYTES,
      why: STOPPED_BECAUSE.files,
    },
    {
      used: async () => (await numberIn("/proc/net/sockstat", /^TCP:.* mem (\d+)$/m)) * 4096,
      limit: limits.tcpBytesOfMachine,
      usedBy: tcpSocketsOf,
      least: (used) => (used * BLAMED_SHARE) / CONNECTION_BYTES,
      why: STOPPED_BECAUSE.tcp,
    },
    {
      used: () => numberIn("/proc/net/sockstat", /^TCP:.* orphan (\d+)/m),
      limit: limits.tcpOrphansOfMachine,
      usedBy: tcpSocketsOf,
      least: (used) => used * BLAMED_SHARE,
      why: STOPPED_BECAUSE.orphans,
    },
    {
      used: () => countOf(memoryOf)(groups),
      limit: limits.allMemoryBytes * USED_UP,
      usedBy: (sandbox) => countOf(memoryOf)(sandbox.groups),
      least: () => 0,
      why: STOPPED_BECAUSE.memory,
    },
  ];
  const running = () => sandboxes().filter(({ isEnding }) => !isEnding);
  // Each check runs on its own, without waiting for the others or for the end of a sandbox.
  const checks = [
    ...pools.map((pool) => async () => await endLargestUser(pool, running)),
    guardKernelMemory(groups, limits.kernelBytes, running),
  ];
  const timers = checks.map((check) => {
    let isChecking = false;
    let wasIdle = true;
    const timer = setInterval(() => {
      if (running().length === 0) wasIdle = true;
      else if (!isChecking) {
        isChecking = true;
        // A file of /proc cannot be read while all descriptors are in use. The next check tries again.
        void check(wasIdle)
          .catch(() => undefined)
          .finally(() => (isChecking = false));
        wasIdle = false;
      }
    }, CHECK_INTERVAL_MS);
    return timer.unref();
  });
  return () => timers.forEach((timer) => clearInterval(timer));
}

async function endLargestUser(
  { used, limit, usedBy, least, why }: Pool,
  sandboxes: () => EngineSandbox[],
): Promise<void> {
  let inUse = await used();
  while (inUse < limit) {
    if (inUse < limit * NEAR || sandboxes().length === 0) return;
    await sleep(NEAR_INTERVAL_MS, undefined, { ref: false });
    inUse = await used();
  }
  const uses = await Promise.all(
    sandboxes().map(async (sandbox) => ({ sandbox, has: await usedBy(sandbox) })),
  );
  const together = new Map<unknown, number>();
  // A sandbox without a known principal counts alone.
  const ownerOf = (sandbox: EngineSandbox) => sandbox.owner ?? sandbox;
  for (const { sandbox, has } of uses)
    together.set(ownerOf(sandbox), (together.get(ownerOf(sandbox)) ?? 0) + has);
  const allOf = ({ sandbox }: { sandbox: EngineSandbox }) => together.get(ownerOf(sandbox)) ?? 0;
  const [largest] = uses.toSorted((a, b) => allOf(b) - allOf(a) || b.has - a.has);
  if (largest === undefined || largest.has < least(inUse)) return;
  largest.sandbox.end(why);
  await Promise.race([largest.sandbox.ended, sleep(END_TIMEOUT_MS, undefined, { ref: false })]);
}

async function tcpSocketsOf({ pid, hasEnded }: EngineSandbox): Promise<number> {
  if (pid === undefined || hasEnded) return 0;
  const numbers = [
    numberIn(`/proc/${pid}/net/sockstat`, /^TCP: inuse (\d+)/m),
    numberIn(`/proc/${pid}/net/sockstat6`, /^TCP6: inuse (\d+)/m),
    waitingConnections(`/proc/${pid}/net/tcp`),
    waitingConnections(`/proc/${pid}/net/tcp6`),
  ];
  return (await Promise.all(numbers)).reduce((sum, number) => sum + number, 0);
}

/** Counts connections that no program has accepted. Those that the client has reset keep their memory, but are not in "inuse". */
async function waitingConnections(list: string): Promise<number> {
  const text = await beginningOf(list, MAX_LISTENER_LIST_BYTES);
  const sockets = text.split("\n").slice(1, -1);
  // The kernel lists listeners first. Their receive queue is a number of connections.
  const queues = sockets.flatMap((line) => TCP_LISTENER.exec(line)?.[1] ?? []);
  if (text.length === MAX_LISTENER_LIST_BYTES && queues.length === sockets.length) return Infinity;
  return queues.reduce((sum, queue) => sum + Number.parseInt(queue, 16), 0);
}

/** The first bytes of a file; none if it cannot be read. */
async function beginningOf(file: string, bytes: number): Promise<string> {
  let text = "";
  try {
    for await (const piece of createReadStream(file, { encoding: "latin1", end: bytes - 1 }))
      text += String(piece);
  } catch {
    return "";
  }
  return text;
}

async function numberIn(file: string, pattern: RegExp): Promise<number> {
  return Number(pattern.exec(await readFile(file, "utf8").catch(() => ""))?.[1] ?? 0);
}
