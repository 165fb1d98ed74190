/**
 * Ends a sandbox that exhausts a resource of the machine for which the kernel has no limit per sandbox, or of which control groups count
 * only a part. docs/internals/security.md (Local sandboxes, Kernel memory) says for each resource what a sandbox could do without its
 * check. UDP sockets have their own check (udp-guard.ts).
 *
 * The guard ends the largest sandbox of the principal that uses most of the resource. If it chose the largest sandbox of all, a
 * principal with several slightly smaller sandboxes could make it end a neighbour's.
 */
import { setTimeout as pause } from "node:timers/promises";
import { waitAtMost } from "../../src/shared/timers.ts";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { CachedFiles, filesOfEnded, keptOfEnded } from "./cached-files.ts";
import { freeNames, NAMES_INTERVAL_MS } from "./free-names.ts";
import { numberIn } from "./host-files.ts";
import { countUnreceived } from "./host-socket.ts";
import {
  boundFilesInQueues,
  boundKeptFiles,
  countHidden,
  type KernelObjects,
  kernelObjects,
  lazyCount,
  type ObjectsOf,
  VERY_MANY,
} from "./kernel-objects.ts";
import { Growth, KernelGrowth, type Meter, Shortage } from "./growth.ts";
import {
  activityOf,
  countOf,
  groupsWith,
  kernelMemoryOf,
  memoryLack,
  mostMemoryOf,
  processesOf,
} from "./group-use.ts";
import {
  countModprobeWaiters,
  countTerminals,
  countTerminalWaiters,
  kernelThreadUse,
  threadTest,
  MIN_LOCAL_SOCKETS,
  MIN_TERMINALS,
} from "./kernel-threads.ts";
import { memoryMargin, type Limits } from "./limits.ts";
import { shareProcessors } from "./processor-shares.ts";
import type { SandboxRegistry } from "./running-sandboxes.ts";
import {
  beginningOf,
  boundQueuedMemory,
  countDatagramSockets,
  countLocalSockets,
  countFullSockets,
  countOrphans,
  hasNoNetlink,
} from "./socket-usage.ts";
import { sum } from "./sum.ts";
import { STOPPED_BECAUSE } from "./texts.ts";
import { guardUDP, UDP_INTERVAL_MS } from "./udp-guard.ts";
import { isOfPrincipal, largestPrincipal, measureUses, sumOf, type Use } from "./uses.ts";

const CHECK_INTERVAL_MS = 250;
/** A program can add 200 watches in a millisecond. */
const WATCHES_INTERVAL_MS = 50;
/**
 * Above this share of its limit, a pool is checked often: the amount that sandboxes take between two checks must fit into the
 * remaining share.
 */
const NEAR_SHARE = 0.75;
const NEAR_INTERVAL_MS = 20;
/** How long a sandbox may take to end, before the guard ends another one for the same memory or other resource. */
const END_TIMEOUT_MS = 5000;
/** How long checks of a pool rest after a count that explains nothing, as a multiple of the count's time, and at most, in milliseconds. */
const RESTS = 4;
const MAX_REST_MS = 2000;

interface Pool {
  used: Meter;
  limit: number;
  /** The ways to use the resource. The first cause that explains the use decides which sandbox is ended. */
  causes: Cause[];
  /**
   * Whether checks pause after a count that explains nothing. A program can take and release such objects within milliseconds, and each
   * count stops all sandboxes. Without a pause, a neighbour whose count takes a second was stopped for most of the time.
   */
  rests?: boolean;
  /** How often the pool is checked, in milliseconds; by default CHECK_INTERVAL_MS. */
  intervalMs?: number;
}

interface Cause {
  usedBy: (sandbox: EngineSandbox, objectsOf: ObjectsOf) => Promise<number>;
  /**
   * If the sandboxes of a principal together use less than this, none is ended, because another program of the machine must be
   * using most of the resource.
   */
  least: (used: number) => number;
  why: string;
  /** Tests whether the principal of this sandbox is the reason. Without it, the principal that uses most is the reason. */
  isReason?: (largest: EngineSandbox) => Promise<boolean>;
  /** Whether to end the principal's other large sandboxes at the same time. To end them one by one takes seconds for each. */
  endsOthers?: boolean;
  /** How long to wait after the end of a sandbox, in milliseconds, because the kernel frees its memory later. */
  freesMs?: number;
}

type Count = (sandbox: EngineSandbox, objectsOf: ObjectsOf) => Promise<KernelObjects>;
const seen: Count = (sandbox, objectsOf) => objectsOf(sandbox);
/** A cause by objects that a count sees. `countHidden` finds others, but only after that, because it breaks connections of a modest sandbox. */
const byCount = (
  useOf: (objects: KernelObjects) => number,
  least: Cause["least"],
  why: string,
  count = seen,
): Cause => ({
  usedBy: async (sandbox, objectsOf) => useOf(await count(sandbox, objectsOf)),
  least,
  why,
  endsOthers: true,
});

/** A principal's sandboxes must use at least this share of a resource before one of them is ended. */
const BLAMED_SHARE = 1 / 20;
/** From this part of their limit, the guard ends sandboxes. The rest is for programs that start until these sandboxes have ended. */
const PROCESSES_BEFORE_END = 7 / 8;
/** Kernel memory that a sandbox uses for purposes other than open files. */
const IDLE_BYTES = 8 * 1024 * 1024;
/** The kernel's memory for an open file: `filp` in /proc/slabinfo, 192 to 256 bytes on 64 bits. */
const FILE_BYTES = 192;
/** The kernel's memory for a file lock: `file_lock_cache` in /proc/slabinfo. */
const LOCK_BYTES = 192;
/** The most memory of one end of a TCP connection: its two buffers, which confine.ts limits. */
const CONNECTION_BYTES = 256 * 1024;
/** The memory that the kernel counts at most for the unread data of a UDP socket: net.core.rmem_default and the last packet. */
const UDP_SOCKET_BYTES = 256 * 1024;
/** The most unread bytes in netlink sockets. A program that lists interfaces reads the reply, a few KiB, immediately. */
const MAX_NETLINK_BYTES = 32 * 1024 * 1024;
/**
 * The most bytes read of a sandbox's list of netlink sockets, because for each 4 KiB the kernel walks through the sockets of all
 * sandboxes. A sandbox with a longer list is ended: it has more than 700 sockets. Programs need one for each thread that looks up
 * a name.
 */
const MAX_NETLINK_LIST_BYTES = 64 * 1024;

/**
 * The most bytes for entries that the kernel has read for a program, which has not read them yet: those of a block of ext4 (4 KiB), which
 * has at most 340 entries, with 64 bytes each.
 */
const DIRECTORY_BYTES = 340 * 64;

/** A principal's sockets, pipes, locks or open directories must explain at least this part of the kernel's growth before one of its sandboxes is ended. */
const QUEUED_SHARE = 0.5;

/**
 * A principal's sandboxes must count at least this part of the kernel's growth as their own before one of them is ended although no cause
 * explains the growth. Otherwise another program must be the reason, or a driver, such as the cache of ZFS. Pipes count a fourteenth of
 * their memory, and open directories a twentieth.
 */
const COUNTED_SHARE = 1 / 64;
/** After a sandbox with 250,000 files has ended, the kernel took less than a second to free them. */
const FREES_MS = 3000;

/** A principal must have at least this part of the machine's new locks before one of its sandboxes is ended. */
const MOST_LOCKS = 0.5;

/** How often the guard looks where threads wait, in milliseconds. */
const WAITERS_INTERVAL_MS = 1000;
/** When this many threads of sandboxes wait for modprobe, a sandbox is ended. Each can use a processor that no limit counts. */
const MODPROBE_WAITERS = 4;
/** A principal must have at least this part of the limit of timers before its sandboxes are ended. */
const TIMERS_SHARE = 0.5;
/** A principal must have at least this part of the new mappings, or of the limit of watches, before one of its sandboxes is ended. */
const MAPPINGS_SHARE = 0.5;
const WATCHES_SHARE = 0.5;
/** The kernel's threads must use at least this part of their limit when only the programs of one principal run, before its sandboxes are ended. */
const THREADS_SHARE = 0.5;
/** A principal must have at least this part of the threads that wait for terminals, or of the limit for modprobe, before its sandboxes are ended. */
const MOST_WAITERS = 0.5;

/** Ends sandboxes that exhaust a resource, and shares the processors. @returns a function that stops this */
export function guardMachine(
  engineGroups: string[],
  limits: Limits,
  registry: Pick<SandboxRegistry, "list" | "count">,
): () => void {
  const listRunning = () => registry.list().filter(({ isEnding }) => !isEnding);
  /** The kernel memory that a control group counts, without that of an idle sandbox; undefined if unknown. */
  const countedMemoryOf = async ({ groups }: EngineSandbox) => {
    const counted = await countOf(groups, kernelMemoryOf);
    return counted > 0 ? Math.max(0, counted - IDLE_BYTES) : undefined;
  };
  const growth = new KernelGrowth(limits.kernelGrowthOfMachine * QUEUED_SHARE);
  const queuedMemoryOf = async (sandbox: EngineSandbox) =>
    growth.isInPages ? await boundQueuedMemory(sandbox, await countedMemoryOf(sandbox)) : 0;
  const udpBytesOf = async (sandbox: EngineSandbox) =>
    (await countDatagramSockets(sandbox)) * UDP_SOCKET_BYTES;
  const part = (share: number) => (used: number) => used * share;
  const half = part(QUEUED_SHARE);
  const shortage = new Shortage(limits);
  const full = fullAt(limits.allMemoryBytes);
  const manyFilesOfEnded = manyFilesAt(limits.allMemoryBytes);
  const keepsThreadsBusy = threadTest(listRunning, limits.kernelThreadProcessorsOfMachine * THREADS_SHARE);
  const countProcesses = async ({ groups }: EngineSandbox) => await countOf(groups, processesOf);
  const pools: Pool[] = [
    {
      used: {
        measure: async () => await countOf(groupsWith("pids.current", engineGroups), processesOf),
      },
      limit: limits.allProcesses * PROCESSES_BEFORE_END,
      causes: [{ usedBy: countProcesses, least: part(BLAMED_SHARE), why: STOPPED_BECAUSE.processes }],
    },
    {
      used: { measure: async () => numberIn("/proc/sys/fs/file-nr", /^(\d+)/) },
      limit: limits.openFilesOfMachine,
      causes: [
        {
          usedBy: ({ groups: of }) => countOf(of, kernelMemoryOf),
          least: (used) => IDLE_BYTES + used * BLAMED_SHARE * FILE_BYTES,
          why: STOPPED_BECAUSE.files,
        },
      ],
    },
    {
      used: new Growth(() => numberIn("/proc/sys/fs/file-nr", /^(\d+)/) || undefined),
      limit: limits.timersOfMachine,
      rests: true,
      causes: [seen, countHidden].map((count) =>
        byCount(
          ({ timers: all }) => all,
          () => limits.timersOfMachine * TIMERS_SHARE,
          STOPPED_BECAUSE.timers,
          count,
        ),
      ),
    },
    {
      used: { measure: async () => numberIn("/proc/net/sockstat", /^TCP:.* mem (\d+)$/m) * 4096 },
      limit: limits.tcpBytesOfMachine,
      causes: [{ usedBy: tcpBytesOf, least: part(BLAMED_SHARE), why: STOPPED_BECAUSE.tcp }],
    },
    {
      used: { measure: async () => numberIn("/proc/net/sockstat", /^UDP:.* mem (\d+)$/m) * 4096 },
      limit: limits.udpBytesOfMachine,
      causes: [{ usedBy: udpBytesOf, least: part(BLAMED_SHARE), why: STOPPED_BECAUSE.udp }],
    },
    {
      used: { measure: async () => numberIn("/proc/net/sockstat", /^TCP:.* orphan (\d+)/m) },
      limit: limits.tcpOrphansOfMachine,
      causes: [{ usedBy: countOrphans, least: part(BLAMED_SHARE), why: STOPPED_BECAUSE.orphans }],
    },
    {
      used: growth,
      limit: limits.kernelGrowthOfMachine,
      causes: [
        byCount(({ pipeBytes }) => pipeBytes, half, STOPPED_BECAUSE.pipes),
        byCount(({ locks }) => locks * LOCK_BYTES, half, STOPPED_BECAUSE.locks),
        byCount(({ directories }) => directories * DIRECTORY_BYTES, half, STOPPED_BECAUSE.directories),
        byCount(({ pipeBytes }) => pipeBytes, half, STOPPED_BECAUSE.pipes, countHidden),
        // After those that are counted: a connection with a few KiB of unread data may hide 85 MB.
        { usedBy: queuedMemoryOf, least: half, why: STOPPED_BECAUSE.sockets },
      ],
    },
    {
      used: shortage,
      limit: 1,
      causes: [
        {
          usedBy: async (sandbox) => (await countedMemoryOf(sandbox)) ?? 0,
          least: () => shortage.growth * COUNTED_SHARE,
          why: STOPPED_BECAUSE.kernelMemory,
          freesMs: FREES_MS,
        },
      ],
    },
    {
      used: new Growth(() => keptOfEnded(engineGroups, () => registry.list(), full, manyFilesOfEnded)),
      limit: manyFilesOfEnded,
      rests: true,
      intervalMs: NAMES_INTERVAL_MS,
      causes: [
        // At once with connections that no program has accepted, because programs may wait for memory until the reason is found.
        byCount(boundKeptFiles, half, STOPPED_BECAUSE.keptFiles, (one, objectsOf) =>
          countHidden(one, objectsOf, "all"),
        ),
        { usedBy: boundFilesInQueues, least: half, why: STOPPED_BECAUSE.keptFiles },
      ],
    },
    {
      used: new Growth(kernelObjects("vm_area_struct")),
      limit: limits.mappingsOfMachine,
      rests: true,
      causes: [
        {
          usedBy: async (sandbox, objectsOf) => (await objectsOf(sandbox)).mappings,
          least: part(MAPPINGS_SHARE),
          why: STOPPED_BECAUSE.mappings,
        },
      ],
    },
    {
      used: new Growth(kernelObjects("file_lock_cache")),
      limit: limits.fileLocksOfMachine,
      rests: true,
      causes: [seen, countHidden].map((count) =>
        byCount(
          ({ locks }) => Math.min(locks, limits.fileLocksOfMachine),
          () => limits.fileLocksOfMachine * MOST_LOCKS,
          STOPPED_BECAUSE.locks,
          count,
        ),
      ),
    },
    {
      used: new Growth(kernelObjects("eventpoll_epi")),
      limit: limits.epollWatchesOfMachine,
      rests: true,
      intervalMs: WATCHES_INTERVAL_MS,
      causes: [seen, countHidden].map((count) =>
        byCount(
          ({ watches }) => watches,
          () => limits.epollWatchesOfMachine * WATCHES_SHARE,
          STOPPED_BECAUSE.watches,
          count,
        ),
      ),
    },
    {
      used: { measure: async () => sum(listRunning().map(countTerminalWaiters)) },
      limit: limits.terminalWaitersOfMachine,
      intervalMs: WAITERS_INTERVAL_MS,
      causes: [
        {
          usedBy: async (sandbox) => countTerminalWaiters(sandbox),
          least: part(MOST_WAITERS),
          why: STOPPED_BECAUSE.terminalWaiters,
          endsOthers: true,
        },
      ],
    },
    {
      used: { measure: async () => sum(listRunning().map((sandbox) => countModprobeWaiters(sandbox))) },
      limit: MODPROBE_WAITERS,
      intervalMs: WAITERS_INTERVAL_MS,
      causes: [
        {
          // The estimate could end a sandbox with one such thread.
          usedBy: async (sandbox) => countModprobeWaiters(sandbox, true),
          least: () => MODPROBE_WAITERS * MOST_WAITERS,
          why: STOPPED_BECAUSE.modprobe,
          endsOthers: true,
        },
      ],
    },
    {
      used: { measure: kernelThreadUse(listRunning) },
      limit: limits.kernelThreadProcessorsOfMachine,
      causes: [
        {
          usedBy: async (sandbox) => countLocalSockets(sandbox),
          least: () => MIN_LOCAL_SOCKETS,
          isReason: keepsThreadsBusy,
          why: STOPPED_BECAUSE.localSockets,
          endsOthers: true,
        },
        {
          usedBy: countTerminals,
          least: () => MIN_TERMINALS,
          isReason: keepsThreadsBusy,
          why: STOPPED_BECAUSE.terminals,
          endsOthers: true,
        },
      ],
    },
  ];
  // Each check runs on its own, without waiting for the others or for the end of a sandbox.
  const files = new CachedFiles();
  const lacksMemory = memoryLack(engineGroups);
  const isLate = lateAfter(LOOK_FOR_KEEPERS_MS);
  const list = () => registry.list();
  const repeat = (check: () => Promise<void>, intervalMs = CHECK_INTERVAL_MS) => {
    let isChecking = false;
    // Only programs that run add watches or UDP sockets. To look for these so often takes longer than to look whether one has run.
    const isDue = intervalMs < CHECK_INTERVAL_MS ? activityOf(engineGroups) : () => true;
    const begin = () => {
      if (isChecking || !isDue()) return;
      isChecking = true;
      void check().finally(() => (isChecking = false));
    };
    return { begin, intervalMs };
  };
  const checks = [
    ...pools.map((pool) =>
      repeat(async () => await endLargestUser(pool, listRunning, lazyCount(listRunning)), pool.intervalMs),
    ),
    repeat(
      async () => await guardMemory(engineGroups, lacksMemory, isLate, limits.allMemoryBytes, list, files),
    ),
    repeat(async () => void (await Promise.all(listRunning().map(endIfNetlinkUnread)))),
    repeat(shareProcessors(engineGroups, registry)),
    repeat(guardUDP(listRunning), UDP_INTERVAL_MS),
    repeat(async () => await files.free(listRunning(), full), NAMES_INTERVAL_MS),
    repeat(async () => await freeNames(listRunning(), engineGroups), NAMES_INTERVAL_MS),
  ];
  const ofInterval = Map.groupBy(checks, ({ intervalMs }) => intervalMs);
  // One timer for all checks with the same interval, because the engine would wake up for each.
  const timers = Array.from(ofInterval, ([intervalMs, together]) =>
    setInterval(() => {
      if (registry.list().length === 0) for (const { used } of pools) used.restart?.();
      if (registry.count > 0) for (const { begin } of together) begin();
    }, intervalMs).unref(),
  );
  return () => timers.forEach((timer) => clearInterval(timer));
}

/**
 * The most memory of a sandbox's TCP connections, and of data that the engine sends to hosts for it. Connections without data do not
 * count: clients of the server that read nothing can use up the memory. When they counted, the guard ended idle sandboxes for it. An idle
 * sandbox has 25 connections.
 */
async function tcpBytesOf(sandbox: EngineSandbox): Promise<number> {
  const [sockets, unreceived] = await Promise.all([
    countFullSockets(sandbox),
    countUnreceived(sandbox.egress.hosts),
  ]);
  return sockets * CONNECTION_BYTES + unreceived;
}

/** From this many bytes on, the guard ends sandboxes for the memory of all sandboxes. */
const fullAt = (limit: number) => limit - memoryMargin(limit);
/** From this many bytes on, the guard looks for sandboxes that keep files for which ended sandboxes count. */
const manyFilesAt = (limit: number) => memoryMargin(limit) / 2;
/** How long it may look for them, in milliseconds: the kernel first tries to free the files. */
const LOOK_FOR_KEEPERS_MS = 20_000;
/** If no program has waited for memory for so long, in milliseconds, the next time is another reason to look. */
const NO_WAIT_MS = 5000;

/**
 * Returns a function that tells, while programs wait for memory, whether they have done so for longer than this. They try again whenever one
 * frees some, so some looks find none that waits.
 */
function lateAfter(ms: number): () => boolean {
  let [begunAt, lastAt] = [-Infinity, -Infinity];
  return () => {
    const now = performance.now();
    if (now - lastAt > NO_WAIT_MS) begunAt = now;
    lastAt = now;
    return now - begunAt > ms;
  };
}

/**
 * Ends sandboxes before the memory of all sandboxes is used up. It ends several at once when the memory of one is not enough, and
 * expects the memory of sandboxes that it ends to be free soon. The memory of the common group is no measure: Linux counts files
 * and names there that it cached for ended sandboxes.
 */
async function guardMemory(
  groups: string[],
  lacksMemory: () => boolean,
  isLate: () => boolean,
  limit: number,
  sandboxes: () => EngineSandbox[],
  files: CachedFiles,
): Promise<void> {
  const full = fullAt(limit);
  // Almost always this is enough. The statistics of a group, which tell the cache, take much longer to read.
  const most = sandboxes().flatMap(({ chargedGroups }) =>
    groupsWith("memory.stat", chargedGroups).map(mostMemoryOf),
  );
  if (!lacksMemory() && sum(most) < full * NEAR_SHARE) return;
  let lacked = false;
  while (sandboxes().length > 0) {
    const lacks = lacksMemory();
    // Programs may wait for a moment only, while the kernel frees what it keeps of ended sandboxes.
    const isExhausted = lacks && lacked;
    lacked = lacks;
    // The largest sandbox is not the reason then, but one that keeps these files.
    if (isExhausted && (await filesOfEnded(groups, sandboxes)) >= manyFilesAt(limit) && !isLate()) {
      await pause(NEAR_INTERVAL_MS, undefined, { ref: false });
      continue;
    }
    const uses = await measureUses(sandboxes(), (sandbox) => files.memoryOf(sandbox, isExhausted));
    const used = isExhausted ? limit : sumOf(uses);
    if (!lacks && used < full * NEAR_SHARE) return;
    if (used >= full) {
      const earliest = performance.now() - END_TIMEOUT_MS;
      let left = uses.filter(({ sandbox: { killedAt = -Infinity } }) => killedAt < earliest);
      // The more of the margin is used up, the faster is the growth, and the more memory is needed.
      while (left.length === uses.length || sumOf(left) > full - (used - full)) {
        const [largest] = largestPrincipal(left.filter(({ sandbox }) => !sandbox.isEnding));
        if (largest === undefined) break;
        largest.sandbox.end(STOPPED_BECAUSE.memory);
        left = left.filter((use) => use !== largest);
      }
    }
    await pause(NEAR_INTERVAL_MS, undefined, { ref: false });
  }
}

async function endLargestUser(
  { used, limit, causes, rests, intervalMs = 0 }: Pool,
  sandboxes: () => EngineSandbox[],
  objectsOf: ObjectsOf,
): Promise<void> {
  if (sandboxes().length === 0) return;
  let inUse = await used.measure();
  while (inUse !== undefined && inUse < limit) {
    if (inUse < limit * NEAR_SHARE || sandboxes().length === 0) return;
    // A pool that is rarely checked takes long to measure.
    await pause(Math.max(NEAR_INTERVAL_MS, intervalMs / 10), undefined, { ref: false });
    inUse = await used.measure();
  }
  if (inUse === undefined) return;
  const begunAt = performance.now();
  for (const { usedBy, least, why, isReason, endsOthers, freesMs } of causes) {
    let uses = await measureUses(sandboxes(), async (sandbox) => await usedBy(sandbox, objectsOf));
    let users = findLargestUsers(uses, least(inUse));
    for (let [largest] = users; largest !== undefined && isReason !== undefined; [largest] = users) {
      if (await isReason(largest)) break;
      const idle = largest;
      uses = uses.filter(({ sandbox }) => !isOfPrincipal(sandbox, idle));
      users = findLargestUsers(uses, least(inUse));
    }
    if (users.length === 0) continue;
    const ending = endsOthers ? users : users.slice(0, 1);
    for (const sandbox of ending) sandbox.end(why);
    await waitAtMost(END_TIMEOUT_MS, Promise.all(ending.map((sandbox) => sandbox.ended)));
    if (freesMs !== undefined) await pause(freesMs, undefined, { ref: false });
    return;
  }
  used.restart?.();
  // What is taken during the pause counts as growth.
  await used.measure();
  const restMs = Math.min(RESTS * (performance.now() - begunAt), MAX_REST_MS);
  if (rests === true) await pause(restMs, undefined, { ref: false });
}

/**
 * The sandboxes of the principal that uses most: first the largest, then the sandboxes that use at least half as much as the
 * largest. If it took too long to count the largest, those that use at least half of `least`. None if the principal uses less than `least`.
 */
function findLargestUsers(all: Use[], least: number): EngineSandbox[] {
  const uses = largestPrincipal(all);
  const [largest] = uses;
  if (largest === undefined || sumOf(uses) < least) return [];
  const much = largest.use < VERY_MANY ? largest.use : least;
  return uses.filter(({ use }) => use >= much / 2).map(({ sandbox }) => sandbox);
}

async function endIfNetlinkUnread(sandbox: EngineSandbox): Promise<void> {
  if ((await unreadNetlink(sandbox)) > MAX_NETLINK_BYTES) sandbox.end(STOPPED_BECAUSE.netlink);
}

async function unreadNetlink(sandbox: EngineSandbox): Promise<number> {
  const { pid, hasEnded } = sandbox;
  // Most sandboxes have no such socket. Their count takes much less time to read than their list.
  if (pid === undefined || hasEnded || hasNoNetlink(sandbox)) return 0;
  const text = await beginningOf(`/proc/${pid}/net/netlink`, MAX_NETLINK_LIST_BYTES);
  if (text.length === MAX_NETLINK_LIST_BYTES) return Infinity;
  const [, ...sockets] = text.trimEnd().split("\n");
  return sum(sockets.map((line) => Number(line.split(/\s+/)[4])));
}
