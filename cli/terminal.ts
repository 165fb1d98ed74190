/** This side of a terminal in a sandbox: keys go there as they are typed, and what it prints comes here. */
import { StringDecoder } from "node:string_decoder";

/** What ends a string sequence (OSC, DCS, SOS, PM, APC): BEL, ST in either form, or what cancels it. */
// oxlint-disable-next-line no-control-regex
const STRING_END = /\x07|\x1b\\|\x9c|[\x18\x1a]/;

/** What begins one, in seven or eight bits; other control characters of eight bits; and an escape that is not complete. */
// oxlint-disable-next-line no-control-regex
const NOT_SHOWN = /\x1b[\]PX^_]|[\x80-\x9f]|\x1b$/;

// oxlint-disable-next-line no-control-regex
const STRING_START = /^(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])$/;

/**
 * What of a sandbox's output a user's terminal gets: text, colours, movements of the cursor; no string sequences. Those could write
 * into the clipboard, set the title, or have the terminal type something.
 */
export class TerminalFilter {
  #isInString = false;
  /** An escape whose next character has not come yet. */
  #held = "";

  take(text: string): string {
    let rest = this.#held + text;
    this.#held = "";
    let shown = "";
    while (rest !== "") {
      if (this.#isInString) {
        const end = STRING_END.exec(rest);
        if (!end) {
          if (rest.endsWith("\u001b")) this.#held = "\u001b";
          return shown;
        }
        this.#isInString = false;
        rest = rest.slice(end.index + end[0].length);
        continue;
      }
      const found = NOT_SHOWN.exec(rest);
      if (!found) return shown + rest;
      shown += rest.slice(0, found.index);
      rest = rest.slice(found.index + found[0].length);
      if (found[0] === "\u001b") this.#held = "\u001b";
      else this.#isInString = STRING_START.test(found[0]);
    }
    return shown;
  }
}

/** Ctrl-], by which telnet is left, too. */
export const LEAVE_KEY = "\u001d";

/** A call is made at most so often, milliseconds: the server allows 20 a second, for typing and following together. */
const CALL_MS = 120;

/** Characters that one call types. */
const MOST_TYPED = 4000;

/** Keys as they are typed, sent in order, and together where they come faster than calls may be made. */
export class Keyboard {
  readonly #send: (text: string) => Promise<void>;
  readonly #failed: (error: unknown) => void;
  readonly #decoder = new StringDecoder("utf8");
  #typed = "";
  #isSending = false;

  /** @param send types a text; when it fails, `failed` is told and nothing more is sent */
  constructor(send: (text: string) => Promise<void>, failed: (error: unknown) => void) {
    this.#send = send;
    this.#failed = failed;
  }

  /** @returns whether the user wants to leave */
  press(keys: Buffer): boolean {
    const text = this.#decoder.write(keys);
    const at = text.indexOf(LEAVE_KEY);
    this.#typed += at < 0 ? text : text.slice(0, at);
    if (!this.#isSending) void this.#sendAll();
    return at >= 0;
  }

  async #sendAll(): Promise<void> {
    this.#isSending = true;
    try {
      while (this.#typed !== "") {
        const text = this.#typed.slice(0, MOST_TYPED).toWellFormed();
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
  const pause = new Promise((resolve) => setTimeout(resolve, CALL_MS));
  const value = await work();
  await pause;
  return value;
}
