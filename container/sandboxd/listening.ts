/** Notices which ports the programs of a run listen on, whatever they left of it. */
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import { marksOf } from "./processes.ts";
import { MOST_PORTS } from "./protocol.ts";

interface Listening {
  port: number;
  /** Whether it is a run's. */
  isOf(run: string): boolean;
}

/** By the number of its socket. Whose a socket is, is looked for once: that takes a look at every process. */
let known = new Map<string, Listening>();

let lookedAt = Number.NEGATIVE_INFINITY;

/**
 * The ports, in order, at most `MOST_PORTS` of them, as they were so many milliseconds ago at the earliest. A look costs
 * milliseconds: the kernel goes through all connections of the machine for it.
 */
export function portsOf(run: string, ageMs: number): number[] {
  if (performance.now() - lookedAt >= ageMs) look();
  const own = [...known.values()].filter(({ isOf }) => isOf(run));
  return [...new Set(own.map(({ port }) => port))].toSorted((a, b) => a - b).slice(0, MOST_PORTS);
}

function look(): void {
  const open = listeningSockets();
  const isNew = [...open.keys()].some((socket) => !known.has(socket));
  const pids = isNew ? owners(open) : undefined;
  known = new Map(
    Array.from(open, ([socket, port]) => [
      socket,
      known.get(socket) ?? { port, isOf: marksOf(pids?.get(socket) ?? 0) },
    ]),
  );
  lookedAt = performance.now();
}

/** Ports by the numbers of the sockets that listen on them. */
function listeningSockets(): Map<string, number> {
  const open = new Map<string, number>();
  for (const file of ["/proc/net/tcp", "/proc/net/tcp6"])
    for (const line of textOf(file).split("\n")) {
      const [, local = "", , state, , , , , , socket] = line.trim().split(/\s+/);
      if (state === "0A" && socket !== undefined)
        open.set(socket, Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16));
    }
  return open;
}

function owners(sockets: ReadonlyMap<string, unknown>): Map<string, number> {
  const found = new Map<string, number>();
  for (const pid of namesIn("/proc").map(Number).filter(Boolean))
    for (const descriptor of namesIn(`/proc/${pid}/fd`)) {
      const socket = /^socket:\[(\d+)\]$/.exec(targetOf(`/proc/${pid}/fd/${descriptor}`))?.[1];
      if (socket !== undefined && sockets.has(socket)) found.set(socket, pid);
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
