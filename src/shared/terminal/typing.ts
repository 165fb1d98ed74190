/** Keys on their way to a terminal in a sandbox. */
import { pause } from "../within.ts";

/** A call is made at most so often, milliseconds: the server allows 20 a second, for typing and following together. */
export const CALL_MS = 120;

/** Characters that one call types. */
const MAX_TYPED = 4000;

/** Text as it is typed, sent in order, and together where it comes faster than calls may be made. */
export class Typing {
  readonly #send: (text: string) => Promise<void>;
  readonly #failed: (error: unknown) => void;
  #typed = "";
  #isSending = false;

  /** @param send types a text; when it fails, `failed` is told and nothing more is sent */
  constructor(send: (text: string) => Promise<void>, failed: (error: unknown) => void) {
    this.#send = send;
    this.#failed = failed;
  }

  type(text: string): void {
    this.#typed += text;
    if (!this.#isSending) void this.#sendAll();
  }

  async #sendAll(): Promise<void> {
    this.#isSending = true;
    try {
      while (this.#typed !== "") {
        const text = this.#typed.slice(0, MAX_TYPED).toWellFormed();
        this.#typed = this.#typed.slice(text.length);
        await spaced(() => this.#send(text));
      }
      this.#isSending = false;
    } catch (error) {
      this.#failed(error);
    }
  }
}

/** Does the work, and takes as long as calls are apart. */
export async function spaced<T>(work: () => Promise<T>): Promise<T> {
  const delay = pause(CALL_MS);
  const value = await work();
  await delay;
  return value;
}
