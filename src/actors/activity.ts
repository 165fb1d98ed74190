/** Counts calls and file streams under way in a sandbox. While there are any, its container is not stopped as idle. */
import { DAY_MS } from "../shared/days.ts";
import { elapsedMs } from "../shared/timers.ts";
import type { ContainerPlatform } from "./platform/platform.ts";

/** How long a transfer counts. Otherwise a client that stops reading a download, by a link or a token, could keep a container for ever. */
const LONGEST_TRANSFER_MS = DAY_MS;

interface ActivityHost {
  background(work: Promise<unknown>): void;
  platform: Pick<ContainerPlatform, "noteUse">;
}

export class Activity {
  readonly #host: ActivityHost;
  #calls = 0;
  /** The transfers under way; `begunAt` in milliseconds since the epoch. */
  readonly #transfers = new Set<{ begunAt: number }>();

  constructor(host: ActivityHost) {
    this.#host = host;
  }

  get hasCalls(): boolean {
    return this.#calls > 0;
  }

  get isBusy(): boolean {
    const isUnderWay = this.#transfers
      .values()
      .some(({ begunAt }) => elapsedMs(begunAt) < LONGEST_TRANSFER_MS);
    return this.#calls > 0 || isUnderWay;
  }

  async call<T>(work: () => Promise<T>): Promise<T> {
    this.#calls++;
    try {
      return await work();
    } finally {
      this.#calls--;
    }
  }

  /** Waits for the transfer of a file's body, which may outlast its call. */
  async transfer<T>(work: Promise<T>): Promise<T> {
    const transfer = { begunAt: Date.now() };
    this.#transfers.add(transfer);
    try {
      return await work;
    } finally {
      this.#transfers.delete(transfer);
      this.#host.platform.noteUse();
    }
  }

  /** Returns a copy of the stream that can leave the actor. A stream from the container counts as a transfer until it ends. */
  trackTransfer(
    body: ReadableStream<Uint8Array>,
    { isFromContainer = true } = {},
  ): ReadableStream<Uint8Array> {
    const { readable, writable } = new IdentityTransformStream();
    const passed = body.pipeTo(writable);
    const done = isFromContainer ? this.transfer(passed) : passed;
    this.#host.background(done.catch(() => undefined));
    return readable;
  }
}
