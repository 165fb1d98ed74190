/** Bytes read one after the other. @throws {Error} where they end too early */
export class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.length - this.at;
  }

  take(count: number): Uint8Array {
    if (count < 0 || count > this.left) throw new Error("it is cut off");
    this.at += count;
    return this.#bytes.subarray(this.at - count, this.at);
  }

  text(count: number): string {
    return String.fromCharCode(...this.take(count));
  }

  u8(): number {
    this.take(1);
    return this.#view.getUint8(this.at - 1);
  }

  u16(littleEndian = false): number {
    this.take(2);
    return this.#view.getUint16(this.at - 2, littleEndian);
  }

  u24(): number {
    const [low = 0, middle = 0, high = 0] = this.take(3);
    return low | (middle << 8) | (high << 16);
  }

  u32(littleEndian = false): number {
    this.take(4);
    return this.#view.getUint32(this.at - 4, littleEndian);
  }
}
