/** A response body without a buffer: a write waits until the client reads the bytes. */
export class UnbufferedBody {
  readonly readable: ReadableStream<Uint8Array>;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  readonly #waiting: { bytes: Uint8Array; done: () => void }[] = [];
  /** Completes the pending `pull`. Undefined while the client does not read. */
  #demand: (() => void) | undefined;
  #isEnded = false;

  constructor(onGone: () => void) {
    this.readable = new ReadableStream<Uint8Array>(
      {
        start: (controller) => void (this.#controller = controller),
        pull: () => this.#pull(),
        cancel: () => {
          this.#close();
          onGone();
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** Resolves when the reader has taken the bytes, or has cancelled. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((done) => {
      if (this.#isEnded) return done();
      this.#waiting.push({ bytes, done });
      this.#deliver();
    });
  }

  /** Ends the stream after these bytes. Waiting bytes are dropped. */
  end(last: Uint8Array): void {
    if (this.#isEnded) return;
    this.#close();
    this.#controller?.enqueue(last);
    this.#controller?.close();
  }

  fail(reason: string): void {
    if (this.#isEnded) return;
    this.#close();
    this.#controller?.error(new Error(reason));
  }

  #pull(): Promise<void> | void {
    if (this.#isEnded) return undefined;
    return new Promise((resolve) => {
      this.#demand = resolve;
      this.#deliver();
    });
  }

  #deliver(): void {
    const next = this.#demand && this.#waiting.shift();
    if (!next) return;
    this.#controller?.enqueue(next.bytes);
    next.done();
    this.#demand?.();
    this.#demand = undefined;
  }

  #close(): void {
    this.#isEnded = true;
    for (const { done } of this.#waiting.splice(0)) done();
    this.#demand?.();
    this.#demand = undefined;
  }
}
