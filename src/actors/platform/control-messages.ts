/**
 * Limits the bytes that a sandbox's control server makes this isolate store. Code in a sandbox can replace its control server, and
 * neither the SDK nor its protocol (capnweb: JSON arrays) has limits.
 */
import { CLOSE_MS } from "../../container/connection.ts";
import { hasMoreValues, SANDBOX_VALUES } from "../../shared/bounded.ts";
import { readBounded } from "../../shared/stream-bytes.ts";
import { textOf } from "../../shared/text.ts";

/** The longest message, in characters. A kernel's document has up to 5 million, and escaping can double them. */
const MAX_MESSAGE = 12 * 1024 * 1024;

/** How many characters this isolate stores at most for the control servers of all sandboxes of a principal. */
const MAX_STORED = 32 * 1024 * 1024;

/** What each message counts besides its text. */
const MESSAGE_BYTES = 64;

/** The close code of RFC 6455, 7.4.1. */
const POLICY_VIOLATION = 1008;

/** For the response to a refused connection, which the SDK parses as JSON. The SDK's own responses have some hundred bytes. */
const REFUSAL_BOUNDS = { maxBytes: 4096, ms: 5000 };

/** A message's kind, and the number of the call or value that it refers to. */
const HEAD = /^\["(push|pull|resolve|reject|release)",(?:(-?\d{1,9})(?=[,\]]))?/;
/** The start of a call of one of the Worker's callbacks, which have negative numbers. */
const CALLBACK_CALL = /^\["push",\["pipeline",(-\d{1,9}),/;
const EXPORTED = /\["export",(-\d+)\]/g;

/** What the Worker stores for one of its calls until it has released the result, and the sandbox all callbacks of the call. */
interface Stored {
  size: number;
  /** How many of these are not released. */
  held: number;
}

/** Counts what one connection makes the Worker store. */
class ByteCounter {
  /** The keys are the numbers of the Worker's calls, and the negative numbers of their callbacks. */
  readonly #stored = new Map<number, Stored>();
  #calls = 0;
  size = 0;

  /** Counts a message of the Worker, which is trusted. */
  fromWorker(message: string): void {
    const [, kind, number] = HEAD.exec(message) ?? [];
    if (kind === "push") {
      const callbacks = Array.from(message.matchAll(EXPORTED), ([, callback]) => Number(callback));
      const stored = { size: 0, held: 1 + callbacks.length };
      for (const key of [++this.#calls, ...callbacks]) this.#stored.set(key, stored);
    } else if (kind === "release" && Number(number) > 0) this.#release(Number(number));
  }

  fromSandbox(message: string): void {
    const [, kind, number] = HEAD.exec(message) ?? [];
    // Each end numbers its own calls from 1, so a positive number is a call of the sandbox, and a negative one a callback.
    if (kind === "release" && Number(number) < 0) this.#release(Number(number));
    if (kind === "release" || kind === "pull") return;
    const [, callback] = CALLBACK_CALL.exec(message) ?? [];
    const stored = this.#stored.get(Number(callback ?? number));
    // capnweb drops a result that the Worker has released before it arrives.
    if (!stored && kind !== "push" && Number(number) > 0) return;
    const size = message.length + MESSAGE_BYTES;
    this.size += size;
    // What belongs to no call of the Worker is never released: only a program in the control server's place sends it.
    if (stored) stored.size += size;
  }

  #release(key: number): void {
    const stored = this.#stored.get(key);
    this.#stored.delete(key);
    if (stored && --stored.held === 0) this.size -= stored.size;
  }
}

/** The counters of the open connections of each principal. They are weak, because an actor may be evicted without an event. */
const counters = new Map<string, Set<WeakRef<ByteCounter>>>();

function storedFor(principalID: string): number {
  const open = counters.get(principalID) ?? new Set();
  let stored = 0;
  for (const each of open) {
    const counter = each.deref();
    if (counter) stored += counter.size;
    else open.delete(each);
  }
  if (open.size === 0) counters.delete(principalID);
  return stored;
}

/**
 * Breaks the connection as soon as a message exceeds a limit, and hides this message and all later ones from the SDK. Call it before
 * the SDK gets the socket.
 * @param abort ends the connection without the control server's confirmation
 */
export function limitMessages(socket: WebSocket, principalID: string, abort: () => void): void {
  const counter = new ByteCounter();
  const ref = new WeakRef(counter);
  const open = counters.get(principalID) ?? new Set();
  counters.set(principalID, open.add(ref));
  const send = socket.send.bind(socket);
  socket.send = (message) => {
    if (typeof message === "string") counter.fromWorker(message);
    send(message);
  };
  let isOver = false;
  const end = () => {
    isOver = true;
    open.delete(ref);
  };
  // The control server may never confirm the close, and go on sending. What it does not read would stay in this isolate's memory.
  const close = socket.close.bind(socket);
  socket.close = (...args) => {
    end();
    close(...args);
    // Also if it has closed the connection too, because it may have read nothing.
    setTimeout(abort, CLOSE_MS);
  };
  const isAllowed = (message: unknown) => {
    if (typeof message !== "string" || message.length > MAX_MESSAGE) return false;
    if (hasMoreValues(message, SANDBOX_VALUES)) return false;
    counter.fromSandbox(message);
    return storedFor(principalID) <= MAX_STORED;
  };
  socket.addEventListener("close", end);
  socket.addEventListener("error", end);
  socket.addEventListener("message", (event) => {
    if (isOver) return event.stopImmediatePropagation();
    if (isAllowed(event.data)) return;
    event.stopImmediatePropagation();
    // The SDK's calls fail now, without the control server's confirmation.
    socket.dispatchEvent(new CloseEvent("close", { code: POLICY_VIOLATION }));
    close(POLICY_VIOLATION);
    abort();
  });
}

/** Limits the response to a refused connection. */
export async function limitRefusal(response: Response): Promise<Response> {
  const bytes = await readBounded(response, REFUSAL_BOUNDS).catch(() => undefined);
  return new Response(bytes && textOf(bytes), response);
}
