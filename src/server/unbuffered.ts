/** The body of a response that keeps nothing: what is written waits until the client takes it. */
export class Unbuffered {
  readonly readable: ReadableStream<Uint8Array>;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  readonly #waiting: { bytes: Uint8Array; done: () => void }[] = [];
  /** Resolves what the reader waits for. */
  #wanted: (() => void) | undefined;
  #isOver = false;

  /** @param gone called when the reader wants no more */
  constructor(gone: () => void) {
    this.readable = new ReadableStream<Uint8Array>(
      {
        start: (controller) => void (this.#controller = controller),
        pull: () => this.#pull(),
        cancel: () => {
          this.#leave();
          gone();
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** Resolves when the reader has taken it, or takes nothing any more. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((done) => {
      if (this.#isOver) return done();
      this.#waiting.push({ bytes, done });
      this.#give();
    });
  }

  /** Ends it, after these last bytes. What waits is left out. */
  end(last: Uint8Array): void {
    if (this.#isOver) return;
    this.#leave();
    this.#controller?.enqueue(last);
    this.#controller?.close();
  }

  /** Ends it as broken. */
  fail(reason: string): void {
    if (this.#isOver) return;
    this.#leave();
    this.#controller?.error(new Error(reason));
  }

  #pull(): Promise<void> | void {
    if (this.#isOver) return undefined;
    return new Promise((wanted) => {
      this.#wanted = wanted;
      this.#give();
    });
  }

  #give(): void {
    const next = this.#wanted && this.#waiting.shift();
    if (!next) return;
    this.#controller?.enqueue(next.bytes);
    next.done();
    this.#wanted?.();
    this.#wanted = undefined;
  }

  #leave(): void {
    this.#isOver = true;
    for (const { done } of this.#waiting.splice(0)) done();
    this.#wanted?.();
    this.#wanted = undefined;
  }
}
