/** Limits the messages of a sandbox's control server. The SDK has no limits, and code in a sandbox can replace its control server. */
import type { Pace } from "../../../container/sandboxd/pace.ts";
import { CLOSE_MS } from "../../container/connection.ts";
import { ControlGuard, RepliesInFlight } from "../../container/control-guard.ts";
import { BROKE_CONTROL } from "../../container/texts.ts";
import { countDigits } from "../../shared/bounded.ts";
import { PerPrincipal } from "../../shared/per-principal.ts";
import { readBounded } from "../../shared/stream-bytes.ts";
import { textOf } from "../../shared/text.ts";

/**
 * How many bytes this isolate stores at most for the control servers of all sandboxes of a principal: 24 MiB together. Measured
 * without a limit: 12 messages of 15 MB took 102 MiB. An isolate on Cloudflare has 128 MB. Above MAX_STORED, each connection
 * still has an equal part of MAX_MORE. Otherwise the code of one sandbox could break the connections of all others.
 */
const MAX_STORED = 18 * 1024 * 1024;
const MAX_MORE = 6 * 1024 * 1024;

/**
 * The rate of messages of a sandbox's control server. 200 runs of code a second need less. Without this limit, messages that have no
 * effect came as fast as the sandbox could send them, and each took 0.02 ms or more of the thread.
 */
export const CONTROL_PACE = { burst: 5000, perSecond: 2000 };

/** The close code of RFC 6455, 7.4.1. */
const POLICY_VIOLATION = 1008;

/** For the response to a refused connection. The SDK's own responses have some hundred bytes. */
const REFUSAL_BOUNDS = { maxBytes: 4096, ms: 5000 };

/** The guards of the open connections of each principal. They are weak, because an actor may be evicted without an event. */
const guards = new PerPrincipal(
  () => new Set<WeakRef<ControlGuard>>(),
  (open) => Array.from(open).every((each) => each.deref() === undefined),
);

interface MessageLimits {
  principalID: string;
  /** All connections of a sandbox share it. */
  pace: Pace;
  /** Ends the connection without the control server's confirmation. */
  abort: () => void;
}

/**
 * Breaks the connection as soon as a message exceeds a limit, and hides this message and all later ones from the SDK. Call it before
 * the SDK gets the socket.
 */
export function limitMessages(socket: WebSocket, { principalID, pace, abort }: MessageLimits): void {
  const guard = new ControlGuard(new RepliesInFlight(), pace);
  const ofPrincipal = guards.of(principalID);
  for (const other of ofPrincipal) if (other.deref() === undefined) ofPrincipal.delete(other);
  const ref = new WeakRef(guard);
  ofPrincipal.add(ref);
  const send = socket.send.bind(socket);
  socket.send = (message) => {
    if (typeof message === "string") guard.fromWorker(message);
    send(message);
  };
  let isOver = false;
  const end = () => {
    isOver = true;
    ofPrincipal.delete(ref);
  };
  // The control server may never confirm the close, and go on sending. What it does not read would stay in this isolate's memory.
  const close = socket.close.bind(socket);
  socket.close = (...args) => {
    end();
    close(...args);
    // Also if it has closed the connection too, because it may have read nothing.
    setTimeout(abort, CLOSE_MS);
  };
  socket.addEventListener("close", end);
  socket.addEventListener("error", end);
  socket.addEventListener("message", (event) => {
    if (isOver) return event.stopImmediatePropagation();
    const reason = reasonToBreak(event.data);
    if (reason === undefined) return;
    event.stopImmediatePropagation();
    // The SDK's calls fail now, without the control server's confirmation.
    socket.dispatchEvent(new CloseEvent("close", { code: POLICY_VIOLATION, reason }));
    close(POLICY_VIOLATION);
    abort();
  });

  /** Why this message breaks the connection; undefined if it does not. */
  function reasonToBreak(message: unknown): string | undefined {
    if (typeof message !== "string") return BROKE_CONTROL.binary;
    const size = guard.fromSandbox(message);
    if (typeof size === "string") return size;
    const open = Array.from(ofPrincipal, (each) => each.deref()).filter((each) => each !== undefined);
    const stored = open.reduce((sum, each) => sum + each.stored, 0);
    return stored > MAX_STORED && guard.stored > MAX_MORE / open.length ? BROKE_CONTROL.stored : undefined;
  }
}

/**
 * Limits the response to a refused connection. The SDK parses its body as JSON without a limit. Drops bodies that are long or could
 * make the parser slow.
 */
export async function limitRefusal(response: Response): Promise<Response> {
  const bytes = await readBounded(response, REFUSAL_BOUNDS).catch(() => undefined);
  const text = bytes && textOf(bytes);
  return new Response(text !== undefined && countDigits(text) === 0 ? text : null, response);
}
