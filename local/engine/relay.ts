/**
 * WebSockets between the Worker and a sandbox. The engine is the endpoint of both connections and forwards the messages, so that
 * it can limit a sandbox. workerd reads all messages immediately, and keeps them in memory until the Worker's thread has time.
 * All sandboxes share this thread. `inside` is the connection to the sandbox, `outside` the connection to the Worker.
 */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocket, WebSocketServer, type ClientOptions } from "ws";
import { ControlGuard, RepliesInFlight } from "../../src/container/control-guard.ts";
import { BROKE_CONTROL } from "../../src/container/texts.ts";
import { FramedConnection, maxMessageBytes } from "./frames.ts";
import { declineUpgrade, limitInterim } from "./outbound-queue.ts";
import { codeOf } from "../../container/sandboxd/file-error.ts";
import { Pace } from "../../container/sandboxd/pace.ts";
import { PerPrincipal } from "../../src/shared/per-principal.ts";
import { gather, limitTogether, Pieces } from "./piece-limit.ts";
import { STOPPED_BECAUSE } from "./texts.ts";

const highWaterMark = 1024 * 1024;
/** The memory of a waiting message besides its bytes. */
const messageOverhead = 1024;
/**
 * The most bytes of waiting or incomplete messages in the previews of all sandboxes of a principal. Ten sandboxes with this limit
 * each could take 1.3 GB of the engine's memory.
 */
const maxBuffered = 128 * 1024 * 1024;
/**
 * The same for our servers in one sandbox. A connection that the Worker has ended stays if its program reads nothing. Each could keep a
 * message, and a sandbox may have 256.
 */
const maxOwnBuffered = 64 * 1024 * 1024;
/**
 * The most for our servers in a sandbox while all sandboxes of its principal have more than `maxBuffered`. One message fits, so that code
 * in some sandboxes cannot stop calls to the others.
 */
const leastOwnBuffered = maxMessageBytes;
/**
 * How long a connection may stay full, in milliseconds: of our servers, and of previews. The engine reads no more from the other end then,
 * so it would never notice that the other end has closed.
 */
const stallMs = { ours: 30_000, preview: 5 * 60_000 };

/** The bytes of waiting or incomplete messages. */
class Buffered {
  bytes = 0;
  /** Those of all sandboxes of the principal together. */
  together: Buffered | undefined;

  add(bytes: number): void {
    this.bytes += bytes;
    this.together?.add(bytes);
  }
}

const handshakeMs = 60_000;
/** How long to pause, in milliseconds, while too many results wait in the Worker. */
const fullMs = 10;
/** How many bytes may arrive at once, and per second after that. A page of a development server has fewer bytes. */
const bytePace = { burst: 64 * 1024 * 1024, perSecond: 32 * 1024 * 1024 };

/** The limits of all sandboxes of a principal together. */
class SharedLimits {
  readonly buffered = new Buffered();
  /** Measured without it: floods of ten programs in the control servers' places made a neighbour's call take 104 ms instead of 18. */
  readonly bytes = new Pace({ burst: 2 * bytePace.burst, perSecond: 2 * bytePace.perSecond });
  readonly pieces = limitTogether();
}

const ofPreviews = new PerPrincipal(() => new SharedLimits());
const ofOwnServers = new PerPrincipal(() => new SharedLimits());

export class RelayPace {
  readonly #bytes = new Pace(bytePace);
  readonly pieces: Pieces;
  readonly inFlight = new RepliesInFlight();
  readonly #isOfPreviews: boolean;
  buffered = new Buffered();

  /**
   * @param isOfPreviews whether to limit the bytes of HTTP bodies, too. Outside of previews, they are the user's file transfers.
   */
  constructor(isOfPreviews: boolean) {
    this.#isOfPreviews = isOfPreviews;
    this.pieces = new Pieces({ bytes: isOfPreviews ? this.#bytes : undefined });
  }

  /** Limits previews, or connections to our servers, together with those of the principal's other sandboxes. Call it before use. */
  joinPrincipal(principal: string): void {
    const { buffered, bytes, pieces } = (this.#isOfPreviews ? ofPreviews : ofOwnServers).of(principal);
    this.#bytes.together = bytes;
    this.pieces.pace.together = pieces;
    if (this.#isOfPreviews) this.buffered = buffered;
    else this.buffered.together = buffered;
  }

  /** Counts bytes of WebSockets, unless `pieces` counts them. Returns how many milliseconds to wait. */
  takeBytes(bytes: number): number {
    return this.#isOfPreviews ? 0 : this.#bytes.take(bytes);
  }

  delayWhenFull(): number {
    return this.inFlight.isFull ? fullMs : 0;
  }
}

interface RelayOptions {
  upstream: Socket;
  path: string;
  headers: [string, string][];
  pace: RelayPace;
  /**
   * After each message of the Worker, this many bytes from the sandbox do not count in the rate, because their protocol limits
   * itself by acknowledgements.
   */
  acknowledgedBytes: number;
  /** The longest message of the sandbox, in bytes. */
  maxPayload: number;
  /** Whether this is a preview. Anybody can open previews, so they are closed if they use too much memory. */
  isPreview: boolean;
  /** Called when the WebSocket begins. */
  onOpen: () => void;
  /** Called if the control server breaks its protocol; undefined for other servers, which may send anything. */
  onBroken: ((how: string) => void) | undefined;
}

export function relay(request: IncomingMessage, worker: Duplex, head: Buffer, options: RelayOptions): void {
  const { upstream, path, headers, pace, acknowledgedBytes, maxPayload, onOpen, onBroken, isPreview } =
    options;
  const offered = headers.find(([name]) => name.toLowerCase() === "sec-websocket-protocol")?.[1];
  const protocols = offered?.split(",").map((protocol) => protocol.trim()) ?? [];
  const forwardedHeaders = headers.filter(
    ([name]) => !/^(sec-websocket-(?!protocol).*|connection|upgrade)$/i.test(name),
  );
  const bounds = {
    maxPayload: maxMessageBytes,
    // No compression: a kilobyte could expand to a megabyte.
    perMessageDeflate: false,
    // Each takes a kilobyte besides its bytes.
    maxBufferedChunks: 16 * 1024,
  };
  const frame = (socket: Duplex, carriesFrames: boolean, buffered: BufferedBytes) =>
    new FramedConnection(socket, pace.pieces, carriesFrames, (memory, isComplete) =>
      buffered.read(memory, isComplete),
    );
  const fromInside = new BufferedBytes(pace, isPreview ? undefined : maxPayload, () => inside.terminate());
  const connection = frame(upstream, false, fromInside);
  const client: ClientOptions = {
    ...bounds,
    maxPayload,
    // The type asks for a Socket, but any stream works.
    createConnection: () => connection as Duplex as Socket,
    headers: Object.fromEntries(forwardedHeaders),
    // Keeps the mask at zeros, so that `ws` copies and changes no data: no cache is between the engine and the sandbox.
    generateMask: () => undefined,
    finishRequest: (outgoing) => {
      limitInterim(outgoing, pace.pieces, () => inside.terminate());
      outgoing.end();
    },
  };
  const inside = new WebSocket(`ws://sandbox${path}`, client);
  keepPaused(connection, inside);
  const handshakeTimer = setTimeout(() => inside.terminate(), handshakeMs);
  worker.on("close", () => inside.terminate());
  let hasResponse = false;
  let protocol: string | undefined;
  inside.on("upgrade", ({ headers: chosen }) => {
    connection.begin();
    // If `ws` knew the offered protocols, it would end connections for which the program chooses none.
    if (!protocols.includes(chosen["sec-websocket-protocol"] ?? "")) return;
    protocol = chosen["sec-websocket-protocol"];
    delete chosen["sec-websocket-protocol"];
  });
  inside.on("error", (error) => {
    if (codeOf(error)?.startsWith("WS_ERR_")) onBroken?.(STOPPED_BECAUSE.frame(error.message));
    upstream.destroy();
    if (!hasResponse) worker.destroy();
  });
  inside.on("close", () => {
    clearTimeout(handshakeTimer);
    fromInside.end();
  });
  inside.on("unexpected-response", (_request, incoming) => {
    hasResponse = true;
    clearTimeout(handshakeTimer);
    gather(incoming, pace.pieces);
    if (!declineUpgrade(incoming, request, worker)) worker.destroy();
  });
  inside.on("open", () => {
    hasResponse = true;
    clearTimeout(handshakeTimer);
    onOpen();
    inside.pause();
    const server = new WebSocketServer({
      ...bounds,
      noServer: true,
      clientTracking: false,
      handleProtocols: () => protocol ?? false,
    });
    const fromOutside = new BufferedBytes(pace, isPreview ? undefined : maxMessageBytes, () =>
      inside.terminate(),
    );
    const outsideConnection = frame(worker, true, fromOutside);
    outsideConnection.unshift(head);
    server.handleUpgrade(request, outsideConnection, Buffer.alloc(0), (outside) => {
      keepPaused(outsideConnection, outside);
      const guard = onBroken === undefined ? undefined : new ControlGuard(pace.inFlight);
      let uncounted = 0;
      pump(outside, inside, connection, fromOutside, (data, isBinary) => {
        uncounted = acknowledgedBytes;
        if (!isBinary) guard?.fromWorker(data.toString("latin1"));
        return 0;
      });
      const admit = (data: Buffer, isBinary: boolean) => {
        const taken =
          isBinary && guard !== undefined
            ? BROKE_CONTROL.binary
            : guard?.fromSandbox(data.toString("latin1"));
        if (typeof taken !== "string") {
          const bytes = taken ?? data.length;
          const free = Math.min(uncounted, bytes);
          uncounted -= free;
          return pace.takeBytes(bytes - free);
        }
        inside.terminate();
        onBroken?.(taken);
        return undefined;
      };
      pump(inside, outside, outsideConnection, fromInside, admit, () => pace.delayWhenFull());
      inside.on("close", () => guard?.close());
      outside.on("close", () => {
        fromOutside.end();
        fromInside.drop();
      });
      inside.on("close", () => fromOutside.drop());
      outside.on("error", () => undefined);
      forwardClose(inside, outside);
      forwardClose(outside, inside);
      inside.resume();
    });
  });
}

/** Keeps a connection paused while its WebSocket is paused. Otherwise a limit of reads may resume it. */
function keepPaused(connection: Duplex, webSocket: WebSocket): void {
  connection.on("resume", () => void (webSocket.isPaused && connection.pause()));
}

/** The bytes of messages of one connection, in one direction. */
class BufferedBytes {
  /** The bytes of all connections that share the limit. */
  readonly #all: Buffered;
  readonly #longest: number | undefined;
  readonly #close: () => void;
  #unfinished = 0;
  #waiting = 0;
  #isDropped = false;
  #stalled: NodeJS.Timeout | undefined;

  /**
   * @param longest the bytes of the longest message. One that is incomplete may take twice as much memory, with its reads and
   * fragments. Previews have undefined, and share `maxBuffered`
   * @param close called for too many bytes, or after `stallMs`
   */
  constructor({ buffered }: RelayPace, longest: number | undefined, close: () => void) {
    this.#all = buffered;
    this.#longest = longest;
    this.#close = close;
  }

  get isFull(): boolean {
    return this.#waiting >= highWaterMark;
  }

  read(memory: number, isComplete: boolean): void {
    if (isComplete) return this.end();
    this.#unfinished += memory;
    this.#all.add(memory);
    const isOverdrawn = (this.#all.together?.bytes ?? 0) > maxBuffered;
    const most = isOverdrawn ? leastOwnBuffered : maxOwnBuffered;
    const isTooMuch =
      this.#longest === undefined
        ? this.#all.bytes > maxBuffered
        : this.#unfinished > 2 * this.#longest || this.#all.bytes > most;
    if (isTooMuch) this.#close();
  }

  add(bytes: number): void {
    this.#waiting += bytes;
    this.#all.add(bytes - this.#unfinished);
    this.#unfinished = 0;
    const ms = this.#longest === undefined ? stallMs.preview : stallMs.ours;
    if (this.isFull) this.#stalled ??= setTimeout(this.#close, ms).unref();
  }

  remove(bytes: number): void {
    if (this.#isDropped) return;
    this.#waiting -= bytes;
    this.#all.add(-bytes);
    if (!this.isFull) this.#endStall();
  }

  /** Call it when no message is incomplete, or the sender has disconnected. */
  end(): void {
    this.#all.add(-this.#unfinished);
    this.#unfinished = 0;
  }

  /** Call it when the receiver has disconnected, so that nothing waits for it. */
  drop(): void {
    this.#isDropped = true;
    this.#all.add(-this.#waiting);
    this.#waiting = 0;
    this.#endStall();
  }

  #endStall(): void {
    clearTimeout(this.#stalled);
    this.#stalled = undefined;
  }
}

/**
 * Forwards messages. Pauses while the other end is full, and for the milliseconds that `admit` and `delayWhenFull` return.
 * @param connection the connection of `to`
 * @param admit returns undefined to drop the message
 */
function pump(
  from: WebSocket,
  to: WebSocket,
  connection: Duplex,
  buffered: BufferedBytes,
  admit: (data: Buffer, isBinary: boolean) => number | undefined,
  delayWhenFull: () => number = () => 0,
): void {
  let isWaiting = false;
  let isCorked = false;
  const resume = () => {
    if (!isWaiting && !buffered.isFull) from.resume();
  };
  const wait = (ms: number) => {
    if (ms === 0 || isWaiting) return;
    isWaiting = true;
    from.pause();
    setTimeout(() => {
      isWaiting = false;
      wait(delayWhenFull());
      resume();
    }, ms);
  };
  from.on("message", (data: Buffer, isBinary) => {
    const ms = admit(data, isBinary);
    if (ms === undefined || to.readyState !== WebSocket.OPEN) return;
    // Simultaneous messages are written together.
    if (!isCorked) {
      isCorked = true;
      connection.cork();
      process.nextTick(() => {
        isCorked = false;
        connection.uncork();
      });
    }
    const bytes = data.length + messageOverhead;
    buffered.add(bytes);
    to.send(data, { binary: isBinary }, () => {
      buffered.remove(bytes);
      resume();
    });
    if (buffered.isFull) from.pause();
    wait(Math.max(ms, delayWhenFull()));
  });
}

/** Closes the other connection with the code of the first one. 1005 and 1006 mean that there is no code. */
function forwardClose(one: WebSocket, other: WebSocket): void {
  one.on("close", (code, reason) => {
    if (code === 1006) other.terminate();
    else if (code === 1005) other.close();
    else other.close(code, reason);
  });
}
