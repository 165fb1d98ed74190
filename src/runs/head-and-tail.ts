import { SHOWN_END_BYTES } from "../../container/sandboxd/protocol.ts";
import { decodeText, joinBytes, wholeCharacters } from "../shared/text.ts";
import type { ShownOutput } from "./shown-output.ts";

const EMPTY = new Uint8Array(0);

export class HeadAndTail {
  /** At most `SHOWN_END_BYTES` each. */
  head: Uint8Array;
  tail: Uint8Array;
  /** Of the whole stream. */
  bytes: number;

  constructor(head: Uint8Array = EMPTY, tail: Uint8Array = EMPTY, bytes = 0) {
    this.head = head;
    this.tail = tail;
    this.bytes = bytes;
  }

  /** Shares the arrays, which `add` replaces and never changes. */
  static copy({ head, tail, bytes }: HeadAndTail): HeadAndTail {
    return new HeadAndTail(head, tail, bytes);
  }

  /** @param last all of the next `count` bytes, or only the last of them if the others were not read */
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

  /** Fewer if fewer are kept. */
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
