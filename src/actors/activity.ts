/** Calls and file streams under way in a sandbox. Its container is not stopped while there are any. */
import type { ContainerPlatform } from "./platform/platform.ts";

export interface ActivityHost {
  background(work: Promise<unknown>): void;
  platform: Pick<ContainerPlatform, "used">;
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

  /** Waits for work on a file's body, which may outlast its call. */
  async transfer<T>(work: Promise<T>): Promise<T> {
    this.#transfers++;
    try {
      return await work;
    } finally {
      this.#transfers--;
      this.#host.platform.used();
    }
  }

  /** Returns the stream in a form that can leave the actor. Counts it as a transfer while bytes come from the container. */
  trackTransfer(body: ReadableStream<Uint8Array>, { isOfContainer = true } = {}): ReadableStream<Uint8Array> {
    const { readable, writable } = new IdentityTransformStream();
    const passed = body.pipeTo(writable);
    const done = isOfContainer ? this.transfer(passed) : passed;
    this.#host.background(done.catch(() => undefined));
    return readable;
  }
}
