/** Notices which ports the programs of a run listen on, whatever they left of it. */
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import { marksOf } from "./run-processes.ts";
import { MAX_PORTS } from "./protocol.ts";

/** The pause between two looks at the ports that a run's programs listen on, milliseconds. */
export const PORTS_MS = 500;

interface Listening {
  port: number;
  /** Where a process has it open; undefined for those of the sandbox's network, which no process in it has. */
  file: string | undefined;
  /** Whether it is a run's. */
  belongsTo(run: string): boolean;
}

/** By the number of its socket. Whose a socket is, is looked for once: that takes a look at every process. */
let known = new Map<string, Listening>();

let lookedAt = Number.NEGATIVE_INFINITY;

/** How long after its command a background process is expected to listen, milliseconds. */
const EXPECT_PORTS_MS = 60_000;

/** So many of the last runs whose background processes may listen yet are remembered. */
const MAX_LATE_RUNS = 16;

/** A run that ended before its background processes listened. */
interface Late {
  endedAt: number;
  /** The run that tells of their ports in its place: the next one that finds them. */
  reporter: string | undefined;
}

const late = new Map<string, Late>();

/**
 * The ports, in order, at most `MAX_PORTS` of them, as they were so many milliseconds ago at the earliest; with those of runs
 * that ended too early to tell of them.
 */
export function portsOf(run: string, ageMs: number): number[] {
  if (performance.now() - lookedAt >= ageMs) scanPorts();
  const found = [...known.values()];
  const own = found.filter(({ belongsTo }) => belongsTo(run));
  for (const [id, its] of late) {
    if ((its.reporter ?? run) !== run) continue;
    const more = found.filter(({ belongsTo }) => belongsTo(id));
    if (more.length > 0) its.reporter = run;
    own.push(...more);
  }
  return [...new Set(own.map(({ port }) => port))].toSorted((a, b) => a - b).slice(0, MAX_PORTS);
}

/** The processes that a run has left in the background do not listen yet: the next run that finds their ports tells of them. */
export function expectPortsOf(run: string): void {
  late.set(run, { endedAt: performance.now(), reporter: undefined });
  const [oldest] = late.keys();
  if (late.size > MAX_LATE_RUNS && oldest !== undefined) late.delete(oldest);
}

/** Whether a run has lately ended whose background processes may listen by now. */
export function arePortsExpected(): boolean {
  const since = performance.now() - EXPECT_PORTS_MS;
  return [...late.values()].some(({ endedAt, reporter }) => reporter === undefined && endedAt > since);
}

/** The processes that listen on a port. */
export function listenersOn(port: number): number[] {
  const open = listeningSockets();
  return Array.from(owners(open)).flatMap(([socket, { pid }]) => (open.get(socket) === port ? [pid] : []));
}

function scanPorts(): void {
  lookedAt = performance.now();
  if (areAllKnown()) return;
  const open = listeningSockets();
  const isNew = [...open.keys()].some((socket) => !known.has(socket));
  const owned = isNew ? owners(open) : undefined;
  known = new Map(
    Array.from(open, ([socket, port]) => [
      socket,
      known.get(socket) ?? {
        port,
        file: owned?.get(socket)?.file,
        belongsTo: marksOf(owned?.get(socket)?.pid ?? 0),
      },
    ]),
  );
}

/**
 * Whether the sandbox has no TCP socket but those known to listen, and each is still open. Counting them is cheap; for a
 * list the kernel goes through the table of all connections of the machine, which takes milliseconds.
 */
function areAllKnown(): boolean {
  const counts = ["/proc/net/sockstat", "/proc/net/sockstat6"].map((file) =>
    Number(/^TCP6?: inuse (\d+)/m.exec(textOf(file))?.[1]),
  );
  const isOpen = ([socket, { file }]: [string, Listening]) =>
    file === undefined || targetOf(file) === `socket:[${socket}]`;
  return counts.reduce((sum, count) => sum + count) === known.size && [...known].every(isOpen);
}

/** The open connections of programs, but for those among themselves. @param own processes that are no programs of the user's */
export function connectionsBetween(own: ReadonlySet<number>): number {
  const open = socketsIn(ESTABLISHED);
  const owned = owners(new Map(open.map((socket) => [socket.number, socket])));
  const isProgram = (number: string) => !own.has(owned.get(number)?.pid ?? process.pid);
  const ends = new Map(open.map(({ local, remote, number }) => [`${local} ${remote}`, number]));
  return open.filter(({ local, remote, number }) => {
    const other = ends.get(`${remote} ${local}`);
    return isProgram(number) && (other === undefined || !isProgram(other));
  }).length;
}

/** Ports by the numbers of the sockets that listen on them. */
function listeningSockets(): Map<string, number> {
  return new Map(
    socketsIn(LISTENS).map(({ number, local }) => [
      number,
      Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16),
    ]),
  );
}

/** States of sockets, as the kernel writes them (include/net/tcp_states.h). */
const ESTABLISHED = "01";
const LISTENS = "0A";

/** An address of IPv4 in a socket of IPv6. */
const MAPPED = /^0{16}FFFF0000/;

function socketsIn(wanted: string): { number: string; local: string; remote: string }[] {
  return ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((file) =>
    textOf(file)
      .split("\n")
      .flatMap((line) => {
        const [, local = "", remote = "", state, , , , , , number] = line.trim().split(/\s+/);
        if (state !== wanted || number === undefined) return [];
        return { number, local: local.replace(MAPPED, ""), remote: remote.replace(MAPPED, "") };
      }),
  );
}

function owners(sockets: ReadonlyMap<string, unknown>): Map<string, { pid: number; file: string }> {
  const found = new Map<string, { pid: number; file: string }>();
  for (const pid of namesIn("/proc").map(Number).filter(Boolean))
    for (const descriptor of namesIn(`/proc/${pid}/fd`)) {
      const file = `/proc/${pid}/fd/${descriptor}`;
      const socket = /^socket:\[(\d+)\]$/.exec(targetOf(file))?.[1];
      if (socket !== undefined && sockets.has(socket)) found.set(socket, { pid, file });
    }
  return found;
}

/** What a process has open is gone with it, at any moment. */
function attempt<T>(work: () => T, otherwise: T): T {
  try {
    return work();
  } catch {
    return otherwise;
  }
}

const textOf = (path: string) => attempt(() => readFileSync(path, "latin1"), "");
const namesIn = (path: string) => attempt(() => readdirSync(path), []);
const targetOf = (path: string) => attempt(() => readlinkSync(path), "");
