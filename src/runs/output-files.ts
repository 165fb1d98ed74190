/** What code has printed as it lies in the sandbox, read by offset in bounded pieces while it grows. */
import { type Shell, countOf } from "../container/shell.ts";
import { type RunSink, STREAMS } from "./run.ts";

/** Bytes read of each stream in one call. */
const PIECE_BYTES = 1024 * 1024;

/** Bytes that are worth a call to give back to the sandbox's disk. */
const FREE_BYTES = 4 * 1024 * 1024;

/** How long reading what has been printed may take, milliseconds. */
const DRAIN_MS = 20_000;

const NAMES = { stdout: "out", stderr: "err" } as const;

export class RunFiles {
  readonly #shell: Shell;
  readonly #sink: RunSink;
  readonly #freed = { stdout: 0, stderr: 0 };
  #draining: Promise<void> = Promise.resolve();

  constructor(shell: Shell, sink: RunSink) {
    this.#shell = shell;
    this.#sink = sink;
  }

  /**
   * Passes on what the code has printed to its files by now. One after the other: two at once would both
   * read on from the same place.
   */
  drain(): Promise<void> {
    const turn = this.#draining.then(() => this.#drain());
    this.#draining = turn.catch(() => undefined);
    return turn;
  }

  async #drain(): Promise<void> {
    while (!this.#sink.ended && !(await this.#read()));
  }

  /** Answers whether the sink has all output there was at that moment. */
  async #read(): Promise<boolean> {
    const sink = this.#sink;
    const max = STREAMS.map((stream) => (sink.hasRoom(stream) ? PIECE_BYTES : 0)).join(" ");
    const line = `${this.#free()}sbx_output ${sink.id} ${sink.position("stdout")} ${sink.position("stderr")} ${max}`;
    const { words: ranges, rest } = await this.#shell.call("run.sh", line, { answerMs: DRAIN_MS });
    const parts = rest.split("\n", STREAMS.length).map((part) => bytesOf(part).subarray(0, PIECE_BYTES));
    let drained = true;
    const output = () => {
      drained = this.#pass(parts, ranges);
    };
    if (parts.some(({ length }) => length > 0)) await sink.take(output);
    else output();
    return drained;
  }

  /** Passes on what was read of each stream; answers whether that was all. @param ranges size and start of each */
  #pass(parts: readonly Uint8Array[], ranges: readonly string[]): boolean {
    const sink = this.#sink;
    let drained = true;
    for (const [index, stream] of STREAMS.entries()) {
      const position = sink.position(stream);
      const size = countOf(ranges[2 * index]) ?? position;
      const start = Math.min(countOf(ranges[2 * index + 1]) ?? position, size);
      const bytes = parts[index] ?? NOTHING;
      const gap = start - position;
      if (gap > 0) sink.skipped(stream, gap + bytes.length, bytes);
      else if (bytes.length > 0) sink.output(stream, bytes);
      // A size without the bytes is none: the command has put something else in the place of its output.
      if (bytes.length > 0 && sink.position(stream) < size) drained = false;
    }
    return drained;
  }

  /** What gives the disk back that holds output which is stored here. */
  #free(): string {
    let line = "";
    for (const stream of STREAMS) {
      const stored = this.#sink.stored(stream);
      if (stored - this.#freed[stream] < FREE_BYTES) continue;
      this.#freed[stream] = stored;
      line += `sbx_free ${this.#sink.id} ${NAMES[stream]} ${stored}; `;
    }
    return line;
  }
}

const NOTHING = new Uint8Array(0);

function bytesOf(base64 = ""): Uint8Array {
  try {
    return Uint8Array.fromBase64(base64);
  } catch {
    return NOTHING;
  }
}
