/** Counts calls and file streams under way in a sandbox. While there are any, its container is not stopped as idle. */
import type { ContainerPlatform } from "./platform/platform.ts";

interface ActivityHost {
  background(work: Promise<unknown>): void;
  platform: Pick<ContainerPlatform, "noteUse">;
}

export class Activity {
  readonly #host: ActivityHost;
  #calls = 0;
  #transfers = 0;

  constructor(host: ActivityHost) {
    this.#host = host;
  }

  get hasCalls(): boolean {
    return this.#calls > 0;
  }

  get isBusy(): boolean {
    return this.#calls > 0 || this.#transfers > 0;
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
    this.#transfers++;
    try {
      return await work;
    } finally {
      this.#transfers--;
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
