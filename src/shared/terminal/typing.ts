import { cutText } from "../text.ts";
import { pause } from "../timers.ts";

/** The server allows 20 calls per second for typing and following together. */
export const CALL_INTERVAL_MS = 120;

const MAX_TYPED = 4000;

/** In order. Combines text that was typed between two calls. */
export class Typing {
  readonly #send: (text: string) => Promise<void>;
  readonly #onFailure: (error: unknown) => void;
  #typed = "";
  #isSending = false;

  /** @param send if it fails, `onFailure` is called and nothing more is sent */
  constructor(send: (text: string) => Promise<void>, onFailure: (error: unknown) => void) {
    this.#send = send;
    this.#onFailure = onFailure;
  }

  type(text: string): void {
    this.#typed += text;
    if (!this.#isSending) void this.#sendAll();
  }

  async #sendAll(): Promise<void> {
    this.#isSending = true;
    try {
      while (this.#typed !== "") {
        const text = cutText(this.#typed, MAX_TYPED).toWellFormed();
        this.#typed = this.#typed.slice(text.length);
        await spaceCalls(() => this.#send(text));
      }
      this.#isSending = false;
    } catch (error) {
      this.#onFailure(error);
    }
  }
}

export async function spaceCalls<T>(work: () => Promise<T>): Promise<T> {
  const delay = pause(CALL_INTERVAL_MS);
  const value = await work();
  await delay;
  return value;
}
