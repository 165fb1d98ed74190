import { StringDecoder } from "node:string_decoder";

export type StreamName = "stdout" | "stderr";

export interface LogEntry {
  stream: StreamName;
  text: string;
}

/** What is kept of a process's output. Beyond it the oldest goes; the container keeps all until it runs out of memory. */
export const LOG_CAP_BYTES = 16 * 1024 * 1024;

/** What an entry costs besides its text, so that many tiny ones are bounded too. */
const ENTRY_OVERHEAD_BYTES = 96;

/** A line without an end is held back up to this length, then passed on as it is. */
const LONGEST_HELD_LINE = 64 * 1024;

/** How far the slowest reader may lag before the process has to wait for it, and when it may go on. */
const PAUSE_ABOVE_BYTES = 4 * 1024 * 1024;
const RESUME_BELOW_BYTES = 1024 * 1024;

/** A reader that took nothing for this long no longer holds the process up; it may miss output. */
const STALLED_AFTER_MS = 30_000;

/** One reader's place in the log. */
class Reader {
  /** Index of the next entry, counted from the first ever written. */
  next: number;
  behindBytes = 0;
  stalled = false;
  wake: (() => void) | undefined;

  constructor(next: number) {
    this.next = next;
  }
}

/**
 * The output of one process: what was written last, in order, and any number of readers that follow it. A reader that
 * cannot keep up holds the process up (`onPause`, `onResume`) rather than filling the memory.
 *
 * In the container output is passed on by whole lines, each ended by a newline even if the process did not write the
 * last one, and without NUL bytes; `lines: false` is the exact text, as the container does without a session.
 */
export class ProcessLog {
  readonly #lines: boolean;
  readonly #onPause: () => void;
  readonly #onResume: () => void;
  readonly #decoders = { stdout: new StringDecoder("utf8"), stderr: new StringDecoder("utf8") };
  readonly #held = { stdout: "", stderr: "" };
  readonly #readers = new Set<Reader>();
  #entries: LogEntry[] = [];
  #first = 0;
  #bytes = 0;
  #ended = false;
  #paused: NodeJS.Timeout | undefined;

  constructor(options: { lines: boolean; onPause: () => void; onResume: () => void }) {
    this.#lines = options.lines;
    this.#onPause = options.onPause;
    this.#onResume = options.onResume;
  }

  get bytes(): number {
    return this.#bytes;
  }

  write(stream: StreamName, chunk: Buffer): void {
    if (this.#ended) return;
    const text = this.#decoders[stream].write(chunk);
    if (!this.#lines) {
      this.#append(stream, text);
      return;
    }
    const pending = this.#held[stream] + text;
    const end = pending.length > LONGEST_HELD_LINE ? pending.length : pending.lastIndexOf("\n") + 1;
    this.#held[stream] = pending.slice(end);
    this.#append(stream, pending.slice(0, end).replaceAll("\0", ""));
  }

  /** Passes on what was held back and lets the readers come to an end. */
  end(): void {
    if (this.#ended) return;
    for (const stream of ["stdout", "stderr"] as const) {
      const rest = (this.#held[stream] + this.#decoders[stream].end()).replaceAll("\0", "");
      this.#append(stream, rest === "" || !this.#lines ? rest : `${rest}\n`);
    }
    this.#ended = true;
    this.#resume();
    for (const reader of this.#readers) reader.wake?.();
  }

  /** All that is kept of one stream. */
  text(stream: StreamName): string {
    let text = this.#first > 0 ? "[the oldest output was dropped by the local runtime]\n" : "";
    for (const entry of this.#entries) if (entry.stream === stream) text += entry.text;
    return text;
  }

  /**
   * Follows the log from its end on, until the process ends or `stop` is called. Output written before goes by
   * `text()`; both together, in one turn of the event loop, miss nothing.
   */
  follow(): { entries: AsyncGenerator<LogEntry>; stop: () => void } {
    const reader = new Reader(this.#first + this.#entries.length);
    this.#readers.add(reader);
    const stop = (): void => {
      this.#readers.delete(reader);
      this.#resumeWhenCaughtUp();
      reader.wake?.();
    };
    return { entries: this.#read(reader, stop), stop };
  }

  async *#read(reader: Reader, stop: () => void): AsyncGenerator<LogEntry> {
    try {
      while (this.#readers.has(reader)) {
        if (reader.next < this.#first) {
          yield { stream: "stderr", text: "[output was dropped by the local runtime]\n" };
          reader.next = Math.max(reader.next, this.#first);
          continue;
        }
        const entry = this.#entries[reader.next - this.#first];
        if (entry) {
          reader.next += 1;
          reader.behindBytes -= entry.text.length;
          reader.stalled = false;
          this.#resumeWhenCaughtUp();
          yield entry;
        } else if (this.#ended) {
          return;
        } else {
          await new Promise<void>((resolve) => (reader.wake = resolve));
        }
      }
    } finally {
      stop();
    }
  }

  #append(stream: StreamName, text: string): void {
    if (text === "") return;
    this.#entries.push({ stream, text });
    this.#bytes += text.length + ENTRY_OVERHEAD_BYTES;
    if (this.#bytes > LOG_CAP_BYTES) this.#dropOldest();
    for (const reader of this.#readers) {
      reader.behindBytes += text.length;
      reader.wake?.();
    }
    if (this.#lag() > PAUSE_ABOVE_BYTES) this.#pause();
  }

  /** Drops down to three quarters of the cap, so that it is not done for every entry. */
  #dropOldest(): void {
    let count = 0;
    while (this.#bytes > LOG_CAP_BYTES * 0.75 && count < this.#entries.length - 1) {
      this.#bytes -= (this.#entries[count]?.text.length ?? 0) + ENTRY_OVERHEAD_BYTES;
      count += 1;
    }
    for (const reader of this.#readers) {
      for (let index = reader.next - this.#first; index < count; index++) {
        if (index >= 0) reader.behindBytes -= this.#entries[index]?.text.length ?? 0;
      }
    }
    this.#entries = this.#entries.slice(count);
    this.#first += count;
  }

  #lag(): number {
    let lag = 0;
    for (const reader of this.#readers) if (!reader.stalled) lag = Math.max(lag, reader.behindBytes);
    return lag;
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = setTimeout(() => {
      for (const reader of this.#readers) {
        if (reader.behindBytes > RESUME_BELOW_BYTES) reader.stalled = true;
      }
      this.#resume();
    }, STALLED_AFTER_MS);
    this.#onPause();
  }

  #resumeWhenCaughtUp(): void {
    if (!this.#paused) return;
    if (this.#lag() < RESUME_BELOW_BYTES) this.#resume();
    else this.#paused.refresh();
  }

  #resume(): void {
    if (!this.#paused) return;
    clearTimeout(this.#paused);
    this.#paused = undefined;
    this.#onResume();
  }
}
