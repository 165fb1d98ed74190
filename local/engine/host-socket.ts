/**
 * Connections to hosts. After the engine has closed a connection, Linux keeps the data that the host has not received for minutes. Measured
 * when the engine closed them at once: 100 tunnels kept 380 MB of the machine's memory for TCP, and no sandbox was charged for it.
 * So the engine closes a connection only when the host has received the data, and resets it after `UNREAD_MS`.
 */
import { Socket, type SocketConstructorOpts } from "node:net";
import { listedName, tcpQueues, type QueueList } from "./socket-usage.ts";

/** How long a host may receive nothing of what a program has sent before it disconnected, in milliseconds. */
export const UNREAD_MS = 60_000;
/** The most connections of a sandbox to hosts, with those that are closing. As many connections to its proxy may be open. */
const MAX_HOSTS = 256;
/** How often the engine looks whether hosts have received the data, in milliseconds. Each time, it reads the list of all connections. */
const CHECK_MS = 250;
/** The reading of a long list may take this part of the time. */
const CHECK_SHARE = 1 / 10;
const MAX_CHECK_MS = 2000;
/** In the kernel's list, the end of the data counts as one byte. */
const END_BYTES = 1;

/** The destroyed connections whose descriptor is still open. */
const closing = new Set<HostSocket>();
let isChecking = false;

export class HostSocket extends Socket {
  #isReset = false;
  #isShuttingDown = false;
  #deadline = 0;
  #unsent: number | undefined;
  #name: string | undefined;
  #close: ((isReset: boolean) => void) | undefined;

  constructor(options: SocketConstructorOpts) {
    super(options);
    this.once("connect", () => {
      // A connection that is reset at once has no address any more.
      if (this.remoteAddress !== undefined) this.#name = listedName(this);
    });
  }

  /** The connection's name in the kernel's list; undefined before it is open. */
  get name(): string | undefined {
    return this.#name;
  }

  /** When the connection is reset if its host receives nothing until then; undefined if it is not closing. */
  get deadline(): number | undefined {
    return this.#close && this.#deadline;
  }

  /** Closes the connection. The kernel drops the data that the host has not received. */
  reset(): void {
    this.#isReset = true;
    if (!this.destroyed) this.destroy();
    else this.#closeIf(true, true);
  }

  override destroy(error?: Error): this {
    // Node would read on while the descriptor is open, and drop the data. No limit counts these reads.
    if (!this.destroyed) this.pause();
    return super.destroy(error);
  }

  // Both would make Node read again.
  override resume(): this {
    return this.destroyed ? this : super.resume();
  }

  override read(size?: number): unknown {
    return this.destroyed ? null : super.read(size);
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#isShuttingDown = true;
    super._final((error) => {
      this.#isShuttingDown = false;
      callback(error);
    });
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (this.connecting || this.bytesWritten === 0) return super._destroy(error, callback);
    this.#close = (isReset) => {
      // Only marks the connection, which is destroyed already.
      if (isReset) super.resetAndDestroy();
      super._destroy(error, callback);
    };
    const isCutOff = error !== null || this.writableLength > 0;
    this.#deadline = performance.now() + (isCutOff || this.#isReset ? 0 : UNREAD_MS);
    closing.add(this);
    if (isCutOff || this.#isReset) this.#closeIf(true, true);
    else if (!this.writableEnded) this._final(() => undefined);
    if (closing.size > 0) checkLater();
  }

  /** Closes the descriptor if the host has received all data. Resets the connection if it is late, or has sent more: nobody reads that. */
  closeIfReceived({ of, isComplete }: QueueList): void {
    const listed = of.get(this.#name ?? "");
    const { unsent, unread } = listed ?? { unsent: isComplete ? 0 : Infinity, unread: 0 };
    const isReceived = unsent <= END_BYTES;
    const isReading = this.#unsent !== undefined && unsent < this.#unsent;
    if (isReading && !this.#isReset) this.#deadline = performance.now() + UNREAD_MS;
    this.#unsent = unsent;
    const mustReset = this.#isReset || performance.now() >= this.#deadline || unread > END_BYTES;
    this.#closeIf(isReceived || mustReset, !isReceived && mustReset);
  }

  #closeIf(isDue: boolean, isReset: boolean): void {
    // While the system shuts the connection down, it cannot reset it, and Node would never close the descriptor.
    if (!isDue || this.#isShuttingDown) return;
    closing.delete(this);
    const close = this.#close;
    this.#close = undefined;
    close?.(isReset);
  }
}

/** Keeps a connection in the set until its descriptor is closed. If the set is full, a closing connection is reset. */
export function trackHost(hosts: Set<Socket>, socket: Socket): Socket {
  if (hosts.size >= MAX_HOSTS) latestIn(hosts)?.reset();
  hosts.add(socket);
  return socket.once("close", () => hosts.delete(socket));
}

/** The closing connection whose host has received nothing for the longest time. */
function latestIn(hosts: Set<Socket>): HostSocket | undefined {
  let latest: HostSocket | undefined;
  for (const socket of hosts)
    if (socket instanceof HostSocket && (socket.deadline ?? Infinity) < (latest?.deadline ?? Infinity))
      latest = socket;
  return latest;
}

function checkLater(ms = CHECK_MS): void {
  if (isChecking) return;
  isChecking = true;
  setTimeout(() => void checkAll(), ms).unref();
}

async function checkAll(): Promise<void> {
  // The list may lack data of connections that are closed while it is read.
  const sockets = [...closing];
  const begun = Date.now();
  const queues = await tcpQueues();
  const pauseMs = Math.min((Date.now() - begun) / CHECK_SHARE, MAX_CHECK_MS);
  for (const socket of sockets) socket.closeIfReceived(queues);
  isChecking = false;
  if (closing.size > 0) checkLater(Math.max(CHECK_MS, pauseMs));
}

/** The bytes that the engine has sent over these connections, and that their hosts have not received. */
export async function countUnreceived(connections: ReadonlySet<Socket>): Promise<number> {
  if (connections.size === 0) return 0;
  const { of } = await tcpQueues();
  return [...connections].reduce(
    (sum, socket) => sum + ((socket instanceof HostSocket && of.get(socket.name ?? "")?.unsent) || 0),
    0,
  );
}
