/** The first and last bytes of a stream, in bounded memory. */
import { SHOWN_END_BYTES } from "../../container/sandboxd/protocol.ts";
import { decodeText, joinBytes, wholeCharacters } from "../shared/text.ts";
import type { ShownOutput } from "./shown-output.ts";

const EMPTY = new Uint8Array(0);

export class HeadAndTail {
  /** The first bytes of the stream, and the last bytes after them: each at most `SHOWN_END_BYTES`. */
  head: Uint8Array;
  tail: Uint8Array;
  /** Bytes of the whole stream. */
  bytes: number;

  constructor(head: Uint8Array = EMPTY, tail: Uint8Array = EMPTY, bytes = 0) {
    this.head = head;
    this.tail = tail;
    this.bytes = bytes;
  }

  /** A copy. It shares the arrays, because `add` replaces them and never changes them. */
  static copy({ head, tail, bytes }: HeadAndTail): HeadAndTail {
    return new HeadAndTail(head, tail, bytes);
  }

  /** Adds the next `count` bytes. `last` contains all of these bytes, or only the last of them if the others were not read. */
  add(last: Uint8Array, count = last.length): void {
    let rest = last;
    if (this.head.length < SHOWN_END_BYTES && this.head.length === this.bytes && count === last.length) {
      const taken = rest.subarray(0, SHOWN_END_BYTES - this.head.length);
      this.head = joinBytes([this.head, taken]);
      rest = rest.subarray(taken.length);
    }
    const added = rest.subarray(-SHOWN_END_BYTES);
    const before = count === last.length ? this.tail : EMPTY;
    const dropped = Math.max(0, before.length + added.length - SHOWN_END_BYTES);
    this.tail = joinBytes([before.subarray(dropped), added]);
    this.bytes += count;
  }

  /** The last `count` bytes, or fewer if fewer are kept. */
  last(count: number): Uint8Array {
    return joinBytes([this.head, this.tail]).subarray(-count);
  }

  toShownOutput(): ShownOutput {
    const { head, tail, bytes } = this;
    if (bytes <= head.length + tail.length)
      return { head: decodeText(joinBytes([head, tail]), "none"), tail: "", bytes, omitted: 0 };
    const first = wholeCharacters(head, "end");
    const last = wholeCharacters(tail, "start");
    const omitted = bytes - first.length - last.length;
    return { head: decodeText(first, "none"), tail: decodeText(last, "none"), bytes, omitted };
  }
}
