/** Estimates the memory that a sandbox's sockets use, from the kernel's lists for its network namespace. */
import { closeSync, createReadStream, openSync, readSync } from "node:fs";
import { isIPv4, type Socket } from "node:net";
import { attempt } from "../../container/sandboxd/file-error.ts";
import { expand } from "./addresses.ts";
import { readShared, readText } from "./host-files.ts";
import { sum } from "./sum.ts";

/**
 * The kernel copies sent data into blocks of this size. A single byte that nobody has read keeps its block in memory, although
 * the kernel counts only about 50 bytes for it.
 */
const BLOCK_BYTES = 32 * 1024;
/** The most blocks of one queue of a TCP socket. Measured: 2,652 with the buffers of confine.ts. */
const MAX_BLOCKS = 2700;
/** The kernel counts at least this many bytes for each block of a UDP socket's queue. A packet of 850 bytes can have 17 blocks. */
const COUNTED_BYTES = 50;
/** The most blocks of a socket without a port: 212,992 bytes (net.core.rmem_default) / COUNTED_BYTES. */
const MAX_HIDDEN_BLOCKS = 4260;
/** The most bytes of a Unix socket that count in no control group: 277 pages that sendfile filled with one byte each. Measured. */
const MAX_LOCAL_BYTES = 277 * 4096;
/** The most bytes of a Unix socket whose pages are full: net.core.wmem_default. */
const MAX_FULL_BYTES = 212_992;
/**
 * For each byte of a Unix socket that a control group counts, at most this many bytes count in no control group. Measured with one
 * byte in each page: 5.2.
 */
const UNCOUNTED_RATIO = 6;

/** The most bytes read of one list: about 7,000 sockets. A sandbox with a longer list counts as the largest. */
const MAX_LIST_BYTES = 1024 * 1024;
/** A socket in a list: number, local and remote address, state, send queue and receive queue. */
const LISTED = /^ *\d+: \w+:\w+ \w+:\w+ (\w\w) (\w+):(\w+) /gm;
const TCP_LISTEN = "0A";
/** The states in which a closed connection has unsent data: FIN_WAIT1, LAST_ACK and CLOSING. */
const TCP_UNSENT = new Set(["04", "09", "0B"]);
/** A TCP socket in a list: its state and its timer. */
const TIMED = /^ *\d+: \w+:\w+ \w+:\w+ (\w\w) \w+:\w+ (\w\w):/gm;
/**
 * The state and the timer of a closed connection that has sent everything, and waits for the end of the other direction. With
 * TCP_LINGER2, it waits so for a minute. Then, and usually at once, it is listed with another timer, and is no socket any more.
 */
const [TCP_FIN_WAIT2, TCP_KEEPALIVE] = ["05", "02"];
const TCP_TIME_WAIT = "06";
/** A TCP socket in a list: local port, remote address and port, state, send queue and receive queue. */
const CONNECTION = /^ *\d+: \w+:(\w+) (\w+:\w+) (\w\w) (\w+):(\w+) /gm;
/**
 * The most bytes read of the machine's list of connections: about 55,000. A principal's requests to hosts can leave 24,000 connections
 * that wait (TIME_WAIT).
 */
const MAX_CONNECTIONS_BYTES = 8 * 1024 * 1024;

/** The number of Unix sockets in a line of /proc/PID/net/protocols. */
const LOCAL = /^UNIX\S* +\d+ +(\d+) /gm;
/** The numbers of the UDP sockets that have a port, in lines of /proc/PID/net/protocols. */
const UDP = /^UDP\S* +\d+ +(\d+) /gm;

/** A socket in a list: its local port. */
const BOUND = /^ *\d+: \w+:(\w+) /gm;
/** The received multicasts and broadcasts in /proc/PID/net/netstat: the third and the fifth number of this line. */
const BROADCASTS = /^IpExt: \d+ \d+ (\d+) \d+ (\d+) /m;

interface Sockets {
  pid?: number;
  hasEnded: boolean;
}

export function countLocalSockets(sandbox: Sockets): number {
  return countIn(listProtocols(sandbox), LOCAL);
}

/** Counts UDP sockets that have a port. Only these receive packets. */
export function countUDPSockets(sandbox: Sockets): number {
  return countIn(listProtocols(sandbox), UDP);
}

/**
 * The largest number of a sandbox's UDP sockets that share a port. Reads synchronously: the kernel returns 4 KiB at a time, and each
 * asynchronous read would wait for a processor, which broadcasts can keep busy.
 */
export function countUDPSocketsOfPort({ pid, hasEnded }: Sockets): number {
  if (pid === undefined || hasEnded) return 0;
  const lists = ["udp", "udp6"].map((list) => readBeginning(`/proc/${pid}/net/${list}`, MAX_LIST_BYTES));
  if (lists.some(({ length }) => length === MAX_LIST_BYTES)) return Infinity;
  const ofPorts = new Map<string, number>();
  for (const [, port = ""] of lists.join("").matchAll(BOUND)) ofPorts.set(port, (ofPorts.get(port) ?? 0) + 1);
  return Math.max(0, ...ofPorts.values());
}

/** The numbers of broadcasts and multicasts that a sandbox has received, as a text; undefined if the kernel does not tell. */
export function groupPackets({ pid }: Sockets): string | undefined {
  const ofIPv4 = BROADCASTS.exec(readText(`/proc/${pid}/net/netstat`));
  const ofIPv6 = /^Ip6InMcastPkts\s+(\d+)$/m.exec(readText(`/proc/${pid}/net/snmp6`));
  return ofIPv4 === null ? undefined : [ofIPv4[1], ofIPv4[2], ofIPv6?.[1]].join(" ");
}

/**
 * Counts UDP sockets, and all sockets without a port: a UDP socket that gives up its port (`connect` with AF_UNSPEC) keeps its
 * unread data.
 */
export async function countDatagramSockets(sandbox: Sockets): Promise<number> {
  return (await readCounts(sandbox)).hidden + countUDPSockets(sandbox);
}

/** The bytes of a TCP connection that its host has not received, and that this machine's program has not read. */
interface Queues {
  unsent: number;
  unread: number;
}

export interface QueueList {
  /** The queues of this machine's TCP connections by `listedName`. */
  of: ReadonlyMap<string, Queues>;
  /** Whether the list has all connections. */
  isComplete: boolean;
}

let reading: Promise<QueueList> | undefined;

/** Reads the machine's TCP connections. Calls at the same time share one reading of a list that can be long. */
export function tcpQueues(): Promise<QueueList> {
  return (reading ??= readQueues().finally(() => (reading = undefined)));
}

async function readQueues(): Promise<QueueList> {
  const of = new Map<string, Queues>();
  const add = (lines: string) => {
    for (const [, port = "", host = "", state, unsent = "", unread = ""] of lines.matchAll(CONNECTION))
      if (state !== TCP_TIME_WAIT)
        of.set(`${port} ${host}`, {
          unsent: Number.parseInt(unsent, 16),
          unread: Number.parseInt(unread, 16),
        });
  };
  const read = async (list: string) => {
    let [length, rest] = [0, ""];
    // Each piece alone, because 24,000 connections would keep the thread busy for 26 ms.
    for await (const piece of piecesOf(`/proc/self/net/${list}`, MAX_CONNECTIONS_BYTES)) {
      const lines = rest + String(piece);
      const end = lines.lastIndexOf("\n") + 1;
      add(lines.slice(0, end));
      rest = lines.slice(end);
      length += String(piece).length;
    }
    return length > 0 && length < MAX_CONNECTIONS_BYTES;
  };
  const areComplete = await Promise.all(["tcp", "tcp6"].map((list) => read(list).catch(() => false)));
  return { of, isComplete: areComplete.every(Boolean) };
}

/**
 * A TCP connection's name in the list: its local port, and the address and port of its host. Linux gives one local port to
 * connections to different hosts. The list has each 32 bits of an address in the machine's byte order.
 */
export function listedName({ localPort = 0, remoteAddress = "", remotePort = 0 }: Socket): string {
  const bytes = isIPv4(remoteAddress)
    ? Buffer.from(remoteAddress.split(".").map(Number))
    : Buffer.from(
        expand(remoteAddress.replace(/%.*/, ""))
          .map((group) => group.padStart(4, "0"))
          .join(""),
        "hex",
      );
  const hex = (number: number, digits: number) => number.toString(16).toUpperCase().padStart(digits, "0");
  const words = Array.from({ length: bytes.length / 4 }, (_, at) => hex(bytes.readUInt32LE(4 * at), 8));
  return `${hex(localPort, 4)} ${words.join("")}:${hex(remotePort, 4)}`;
}

/** Whether the kernel counts no netlink sockets. */
export function hasNoNetlink(sandbox: Sockets): boolean {
  return /^NETLINK +\d+ +0 /m.test(listProtocols(sandbox));
}

/**
 * The kernel's count of the sandbox's sockets for each protocol. Reads synchronously, because the guard reads this short list of
 * each sandbox four times a second: a stream takes nine times as long.
 */
function listProtocols({ pid, hasEnded }: Sockets): string {
  return pid === undefined || hasEnded ? "" : readShared(`/proc/${pid}/net/protocols`);
}

/**
 * An upper bound of the memory for unsent and unread data in a sandbox's sockets that counts in no control group.
 * @param kernelBytes the kernel's memory that the control group counts, if it is known
 */
export async function boundQueuedMemory(sandbox: Sockets, kernelBytes?: number): Promise<number> {
  const [counts, blocks] = await Promise.all([readCounts(sandbox), countBlocks(sandbox)]);
  // Idle Unix sockets take little of the kernel's memory. Without this limit, a sandbox with many of them would seem to use much.
  const local = Math.min(
    counts.local * MAX_LOCAL_BYTES,
    counts.local * MAX_FULL_BYTES + (kernelBytes ?? Infinity) * UNCOUNTED_RATIO,
  );
  return blocks * BLOCK_BYTES + local;
}

/** How many blocks the data in a sandbox's TCP and UDP sockets can have at most. A block can be a page of a file (sendfile). */
export async function countBlocks(sandbox: Sockets): Promise<number> {
  const lists = ["tcp", "tcp6", "udp", "udp6"] as const;
  const [{ hidden }, ...blocks] = await Promise.all([
    readCounts(sandbox),
    ...lists.map((list) => countQueuedBlocks(sandbox, list)),
  ]);
  return sum(blocks) + hidden * MAX_HIDDEN_BLOCKS;
}

async function countQueuedBlocks(sandbox: Sockets, list: "tcp" | "tcp6" | "udp" | "udp6"): Promise<number> {
  const text = await readNetFile(sandbox, list);
  if (text.length === MAX_LIST_BYTES) return Infinity;
  const blocksIn = list.startsWith("tcp")
    ? (bytes: number) => Math.min(bytes, MAX_BLOCKS)
    : (bytes: number) => bytes / COUNTED_BYTES;
  const blocks = Array.from(text.matchAll(LISTED), ([, state, ...queues]) =>
    // The queues of a listener are numbers of connections.
    state === TCP_LISTEN ? 0 : sum(queues.map((queue) => blocksIn(Number.parseInt(queue, 16)))),
  );
  return sum(blocks);
}

/**
 * Counts the sockets whose data may take the machine's memory for TCP. Those without unsent or unread data take almost none. Sockets in
 * no list count, because they keep their data.
 */
export async function countFullSockets(sandbox: Sockets): Promise<number> {
  const [counts, lists] = await Promise.all([readCounts(sandbox), listTCP(sandbox)]);
  if (lists === undefined) return counts.network;
  const isFull = ([, state, ...queues]: string[]) =>
    state !== TCP_LISTEN && queues.some((queue) => Number.parseInt(queue, 16) > 0);
  const full = lists.flatMap((text) => [...text.matchAll(LISTED)].filter(isFull));
  return full.length + counts.hidden;
}

/** Counts the closed connections that are still sockets. A sandbox with a long list counts with all its sockets. */
export async function countOrphans(sandbox: Sockets): Promise<number> {
  const lists = await listTCP(sandbox);
  if (lists === undefined) return (await readCounts(sandbox)).network;
  const isOrphan = ([, state = "", timer]: string[]) =>
    TCP_UNSENT.has(state) || (state === TCP_FIN_WAIT2 && timer === TCP_KEEPALIVE);
  return lists.flatMap((text) => [...text.matchAll(TIMED)].filter(isOrphan)).length;
}

/** The lists of a sandbox's TCP sockets; undefined if one of them is too long. */
async function listTCP(sandbox: Sockets): Promise<string[] | undefined> {
  const lists = await Promise.all(["tcp", "tcp6"].map((list) => readNetFile(sandbox, list)));
  return lists.some(({ length }) => length === MAX_LIST_BYTES) ? undefined : lists;
}

/** The numbers of a sandbox's sockets. */
interface Counts {
  /** Unix sockets. */
  local: number;
  /** All others, including those without a port and connections that no program has accepted. */
  network: number;
  /** Those in no list: UDP sockets without a port, and connections that were reset before a program accepted them. */
  hidden: number;
}

async function readCounts(sandbox: Sockets): Promise<Counts> {
  const [summary, protocols] = await Promise.all([
    readNetFile(sandbox, "sockstat"),
    readNetFile(sandbox, "protocols"),
  ]);
  const all = Number(/^sockets: used (\d+)/.exec(summary)?.[1] ?? 0);
  const local = countIn(protocols, LOCAL);
  const hidden = Math.max(0, all - countIn(protocols, /^\S+ +\d+ +(\d+) /gm));
  return { local, network: all - local, hidden };
}

/** The sum of the protocols' counts. The file /proc/PID/net/protocols lists Unix sockets, and all other sockets that have a port. */
function countIn(protocols: string, lines: RegExp): number {
  return sum(Array.from(protocols.matchAll(lines), ([, count]) => Number(count)));
}

async function readNetFile({ pid, hasEnded }: Sockets, name: string): Promise<string> {
  return pid === undefined || hasEnded ? "" : await beginningOf(`/proc/${pid}/net/${name}`, MAX_LIST_BYTES);
}

/** The first bytes of a file; none if it cannot be read. */
export async function beginningOf(file: string, bytes: number): Promise<string> {
  let text = "";
  try {
    for await (const piece of piecesOf(file, bytes)) text += String(piece);
  } catch {
    return "";
  }
  return text;
}

/** Reads the first bytes of a file. */
const piecesOf = (file: string, bytes: number) =>
  createReadStream(file, { encoding: "latin1", end: bytes - 1 });

/** Like `beginningOf`, but synchronously. */
function readBeginning(file: string, bytes: number): string {
  return attempt(() => {
    const descriptor = openSync(file, "r");
    try {
      const buffer = Buffer.allocUnsafe(bytes);
      let length = 0;
      for (let read = -1; read !== 0 && length < bytes; length += read)
        read = readSync(descriptor, buffer, length, bytes - length, null);
      return buffer.toString("latin1", 0, length);
    } finally {
      closeSync(descriptor);
    }
  }, "");
}
