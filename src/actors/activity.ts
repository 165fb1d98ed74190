/** The calls and the streams of files that are under way in a sandbox, whose container is not stopped meanwhile. */
export interface ActivityHost {
  background(work: Promise<unknown>): void;
  /** Has the time without use begin anew. */
  used(): void;
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

  /** Does work with the body of a file, which may go on after its call. */
  async transfer<T>(work: Promise<T>): Promise<T> {
    this.#transfers++;
    try {
      return await work;
    } finally {
      this.#transfers--;
      this.#host.used();
    }
  }

  /** The same bytes, as a stream that can leave the actor. While they come from the container, that is a transfer. */
  trackTransfer(body: ReadableStream<Uint8Array>, { isOfContainer = true } = {}): ReadableStream<Uint8Array> {
    const { readable, writable } = new IdentityTransformStream();
    const passed = body.pipeTo(writable);
    const done = isOfContainer ? this.transfer(passed) : passed;
    this.#host.background(done.catch(() => undefined));
    return readable;
  }
}
