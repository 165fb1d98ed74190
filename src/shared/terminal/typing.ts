/** Keyboard input for a sandbox's terminal. */
import { cutText } from "../text.ts";
import { pause } from "../timers.ts";

/** The shortest time between calls. The server allows 20 calls per second for typing and following together. */
export const CALL_INTERVAL_MS = 120;

const MAX_TYPED = 4000;

/** Sends typed text in order, and combines text that was typed between two calls. */
export class Typing {
  readonly #send: (text: string) => Promise<void>;
  readonly #onFailure: (error: unknown) => void;
  #typed = "";
  #isSending = false;

  /** @param send types a text. If `send` fails, `onFailure` is called and nothing more is sent */
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
        const text = cutText(this.#typed, MAX_TYPED);
        this.#typed = this.#typed.slice(text.length);
        await spaceCalls(() => this.#send(text));
      }
      this.#isSending = false;
    } catch (error) {
      this.#onFailure(error);
    }
  }
}

/** Does the work, and returns when the next call is allowed. */
export async function spaceCalls<T>(work: () => Promise<T>): Promise<T> {
  const delay = pause(CALL_INTERVAL_MS);
  const value = await work();
  await delay;
  return value;
}
