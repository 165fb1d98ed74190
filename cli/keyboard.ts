/** The keyboard of a terminal in a sandbox. */
import { StringDecoder } from "node:string_decoder";
import { Typing } from "../src/shared/terminal/typing.ts";

/** Ctrl-], as in telnet. */
const DETACH_KEY = "\u001d";

export class Keyboard {
  readonly #typing: Typing;
  readonly #decoder = new StringDecoder("utf8");

  /** @param send types a text. After its first failure, the keyboard calls `onFailure` and sends nothing more */
  constructor(send: (text: string) => Promise<void>, onFailure: (error: unknown) => void) {
    this.#typing = new Typing(send, onFailure);
  }

  /** @returns whether the user pressed the key that detaches from the terminal */
  press(keys: Buffer): boolean {
    const text = this.#decoder.write(keys);
    const at = text.indexOf(DETACH_KEY);
    this.#typing.type(at < 0 ? text : text.slice(0, at));
    return at >= 0;
  }
}
