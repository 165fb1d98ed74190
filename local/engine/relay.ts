/**
 * WebSockets between the Worker and a sandbox. The engine ends both connections and passes messages on, so that it can
 * bound what a sandbox sends: workerd reads messages as they come, and keeps them until the Worker's one thread, which
 * all sandboxes share, has time for them.
 */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocket, WebSocketServer, type ClientOptions } from "ws";
import { AnswersInFlight, ControlGuard, maxMessageBytes } from "./control-guard.ts";
import { declineUpgrade } from "./outbound.ts";
import { Pace } from "./pace.ts";

/** Bytes that may wait for a slow reader before the other end is not read any more. */
const highWaterMark = 1024 * 1024;

/** How long a server in a sandbox may take to accept a WebSocket, milliseconds. */
const handshakeMs = 60_000;

/** How often to check whether the Worker has taken what a sandbox waits for, milliseconds. */
const fullMs = 10;

/** Bytes and messages that all WebSockets of one sandbox may bring the Worker; more wait. */
export class RelayPace {
  readonly bytes = new Pace({ burst: 64 * 1024 * 1024, perSecond: 32 * 1024 * 1024 });
  readonly messages = new Pace({ burst: 10_000, perSecond: 5000 });
  readonly inFlight = new AnswersInFlight();

  take(bytes: number): number {
    return Math.max(this.bytes.take(bytes), this.messages.take());
  }

  /** Milliseconds to wait until it is asked again, 0 when there is room for more. */
  full(): number {
    return this.inFlight.tooMany ? fullMs : 0;
  }
}

export interface RelayOptions {
  /** A connection to the server in the sandbox. */
  upstream: Socket;
  /** Path and query, and the headers, as that server is to see them. */
  path: string;
  headers: [string, string][];
  pace: RelayPace;
  /**
   * Bytes that each message of the Worker allows without counting: a protocol in which the Worker acknowledges what it
   * takes bounds itself.
   */
  acknowledgedBytes: number;
  /** Called when a control server breaks its protocol; undefined for other servers, which may send anything. */
  broken: ((how: string) => void) | undefined;
}

/** Accepts the Worker's WebSocket when the server in the sandbox does; else passes that server's answer on. */
export function relay(request: IncomingMessage, worker: Duplex, head: Buffer, options: RelayOptions): void {
  const { upstream, path, headers, pace, acknowledgedBytes, broken } = options;
  const given = headers.find(([name]) => name.toLowerCase() === "sec-websocket-protocol")?.[1];
  const protocols = given?.split(",").map((protocol) => protocol.trim()) ?? [];
  const rest = headers.filter(([name]) => !/^(sec-websocket-.*|connection|upgrade)$/i.test(name));
  const bounds = {
    maxPayload: maxMessageBytes,
    // No compression: a kilobyte could expand to a megabyte.
    perMessageDeflate: false,
  };
  const client: ClientOptions = {
    ...bounds,
    createConnection: () => upstream,
    handshakeTimeout: handshakeMs,
    headers: Object.fromEntries(rest),
  };
  const inside = new WebSocket(`ws://sandbox${path}`, protocols, client);
  // A socket on which a tunnel was negotiated is paused.
  upstream.resume();
  worker.on("close", () => inside.terminate());
  let answered = false;
  inside.on("error", (error) => {
    const code = "code" in error ? String(error.code) : "";
    if (code.startsWith("WS_ERR_")) broken?.(`sent no frame of a WebSocket's (${error.message})`);
    upstream.destroy();
    if (!answered) worker.destroy();
  });
  inside.on("unexpected-response", (_request, incoming) => {
    answered = true;
    if (!declineUpgrade(incoming, request, worker)) worker.destroy();
  });
  inside.on("open", () => {
    answered = true;
    inside.pause();
    const server = new WebSocketServer({
      ...bounds,
      noServer: true,
      clientTracking: false,
      handleProtocols: () => inside.protocol || false,
    });
    server.handleUpgrade(request, worker, head, (outside) => {
      const guard = broken === undefined ? undefined : new ControlGuard(pace.inFlight);
      let uncounted = 0;
      pump(outside, inside, (data, binary) => {
        uncounted = acknowledgedBytes;
        if (!binary) guard?.fromWorker(data);
        return 0;
      });
      const admit = (data: Buffer, binary: boolean) => {
        const taken = binary && guard !== undefined ? "sent a binary message" : guard?.fromSandbox(data);
        if (typeof taken !== "string") {
          const bytes = taken ?? data.length;
          const free = Math.min(uncounted, bytes);
          uncounted -= free;
          return pace.take(bytes - free);
        }
        inside.terminate();
        broken?.(taken);
        return undefined;
      };
      const fromInside = pump(inside, outside, admit, () => pace.full());
      inside.on("close", () => guard?.close());
      // They are answered here.
      inside.on("ping", () => fromInside.wait(pace.take(0)));
      inside.on("pong", () => fromInside.wait(pace.take(0)));
      outside.on("error", () => undefined);
      closeWith(inside, outside);
      closeWith(outside, inside);
      inside.resume();
    });
  });
}

/**
 * Passes messages on, and reads no further while the other end does not take them, or for as long as `admit` says.
 * @param admit Milliseconds to wait after this message, or undefined to drop it.
 * @param full Milliseconds until it is asked again whether the next one may be read, 0 when it may.
 */
function pump(
  from: WebSocket,
  to: WebSocket,
  admit: (data: Buffer, binary: boolean) => number | undefined,
  full: () => number = () => 0,
): { wait: (ms: number) => void } {
  let waits = false;
  const resume = () => {
    if (!waits && to.bufferedAmount < highWaterMark) from.resume();
  };
  const wait = (ms: number) => {
    if (ms === 0 || waits) return;
    waits = true;
    from.pause();
    setTimeout(() => {
      waits = false;
      wait(full());
      resume();
    }, ms);
  };
  from.on("message", (data: Buffer, binary) => {
    const ms = admit(data, binary);
    if (ms === undefined || to.readyState !== WebSocket.OPEN) return;
    to.send(data, { binary }, resume);
    if (to.bufferedAmount >= highWaterMark) from.pause();
    wait(Math.max(ms, full()));
  });
  return { wait };
}

/** Closes the other connection with the code of the first; 1005 and 1006 mean that there was none. */
function closeWith(one: WebSocket, other: WebSocket): void {
  one.on("close", (code, reason) => {
    if (code === 1006) other.terminate();
    else if (code === 1005) other.close();
    else other.close(code, reason);
  });
}
