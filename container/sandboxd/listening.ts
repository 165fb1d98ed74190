/** Finds the ports that a run's programs listen on, including its background processes. */
import { attempt } from "./file-error.ts";
import { readdirSync, readlinkSync } from "node:fs";
import { procText } from "./proc-stat.ts";
import { marksOf } from "./run-processes.ts";
import { MAX_PORTS, SANDBOXD_PORT } from "./protocol.ts";
import { remember } from "./remember.ts";

/** The time between two scans of a run's ports, in milliseconds. Each scan reads the tables of all sockets. */
export const PORT_SCAN_INTERVAL_MS = 500;

interface Listening {
  port: number;
  /** The descriptor's path in /proc; undefined if no process of the sandbox has the socket. */
  file: string | undefined;
  belongsTo(run: string): boolean;
}

/** Known sockets by number. The process that has a socket is looked up once, because the search scans all processes. */
let known = new Map<string, Listening>();
let scannedAt = Number.NEGATIVE_INFINITY;
/** For this long after a run's end, in milliseconds, later short runs also scan for the ports of its background processes. */
const LATE_PORTS_WAIT_MS = 60_000;
const MAX_LATE_RUNS = 16;

interface EndedRun {
  endedAt: number;
  /** The later run that reports this run's ports. It is the first run that finds them. */
  reporter: string | undefined;
}

const runsWithoutPorts = new Map<string, EndedRun>();

/**
 * A run's ports in order, at most `MAX_PORTS`, from a scan that is at most `ageMs` old. Includes the ports of earlier runs whose
 * background processes began to listen after the run's end.
 */
export function portsOf(run: string, ageMs: number): number[] {
  if (performance.now() - scannedAt >= ageMs) scanPorts();
  const found = [...known.values()];
  const runPorts = found.filter(({ belongsTo }) => belongsTo(run));
  for (const [id, ended] of runsWithoutPorts) {
    if ((ended.reporter ?? run) !== run) continue;
    const more = found.filter(({ belongsTo }) => belongsTo(id));
    if (more.length > 0) ended.reporter = run;
    runPorts.push(...more);
  }
  return [...new Set(runPorts.map(({ port }) => port))].toSorted((a, b) => a - b).slice(0, MAX_PORTS);
}

/** Remembers an ended run whose background processes do not listen yet. The next run that finds their ports reports them. */
export function expectPortsOf(run: string): void {
  remember(runsWithoutPorts, run, { endedAt: performance.now(), reporter: undefined }, MAX_LATE_RUNS);
}

export function arePortsExpected(): boolean {
  const since = performance.now() - LATE_PORTS_WAIT_MS;
  return [...runsWithoutPorts.values()].some(
    ({ endedAt, reporter }) => reporter === undefined && endedAt > since,
  );
}

export function listenersOn(port: number): number[] {
  const open = listeningSockets();
  return Array.from(owners(open)).flatMap(([socket, { pid }]) => (open.get(socket) === port ? [pid] : []));
}

export function isListening(port: number): boolean {
  return [...listeningSockets().values()].includes(port);
}

function scanPorts(): void {
  scannedAt = performance.now();
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
 * Whether the TCP sockets that are not connected are exactly the known listeners. Counting is cheap; listing all connections takes
 * milliseconds.
 */
function areAllKnown(): boolean {
  const countConnected = () => Number(/^Tcp:(?: -?\d+){8} (\d+)/m.exec(procText("/proc/net/snmp"))?.[1]);
  const connected = countConnected();
  const counts = ["/proc/net/sockstat", "/proc/net/sockstat6"].map((file) =>
    Number(/^TCP6?: inuse (\d+)/m.exec(procText(file))?.[1]),
  );
  const isOpen = ([socket, { file }]: [string, Listening]) =>
    file === undefined || targetOf(file) === `socket:[${socket}]`;
  const unconnected = counts.reduce((sum, count) => sum + count) - connected;
  // A connection that closes between the two reads would hide a new listener.
  return unconnected === known.size && countConnected() === connected && [...known].every(isOpen);
}

/** Counts open connections of programs to hosts outside the sandbox. @param own processes of this server, which do not count */
export function countExternalConnections(own: ReadonlySet<number>): number {
  const open = socketsIn(ESTABLISHED).filter(({ remote }) => remote !== ENGINE_END);
  const owned = owners(new Map(open.map((socket) => [socket.number, socket])));
  const isProgram = (number: string) => !own.has(owned.get(number)?.pid ?? process.pid);
  const ends = new Map(open.map(({ local, remote, number }) => [`${local} ${remote}`, number]));
  return open.filter(({ local, remote, number }) => {
    const other = ends.get(`${remote} ${local}`);
    return isProgram(number) && (other === undefined || !isProgram(other));
  }).length;
}

function listeningSockets(): Map<string, number> {
  return new Map(
    socketsIn(LISTENS).map(({ number, local }) => [
      number,
      Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16),
    ]),
  );
}

/** Socket states in Linux's format (include/net/tcp_states.h). */
const ESTABLISHED = "01";
const LISTENS = "0A";
/** `ENGINE_ADDRESS` (engine-link.ts). */
const ENGINE_END = `0100007F:${SANDBOXD_PORT.toString(16).toUpperCase()}`;
/** An IPv4 address in an IPv6 socket. */
const MAPPED = /^0{16}FFFF0000/;

function socketsIn(wanted: string): { number: string; local: string; remote: string }[] {
  return ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((file) =>
    procText(file)
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

// A process and its descriptors may disappear at any time.
const namesIn = (path: string) => attempt(() => readdirSync(path), []);
const targetOf = (path: string) => attempt(() => readlinkSync(path), "");
