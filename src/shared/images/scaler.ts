/** Makes a picture smaller row by row, each pixel of the result the mean of the area it covers: only the result is in memory. */

export interface Size {
  /** Pixels. */
  width: number;
  height: number;
}

/** Samples of a pixel: red, green, blue. */
const SAMPLES = 3;

export class Scaler {
  readonly #to: Size;
  /** How much of a pixel of the result one of the source covers, each way; at most 1. */
  readonly #across: number;
  readonly #down: number;
  /** The row of the result that is being made and the one after it. */
  #row: Float32Array;
  #next: Float32Array;
  readonly #line: Float32Array;
  readonly #rgba: Uint8Array;
  #taken = 0;
  #made = 0;

  constructor(from: Size, to: Size) {
    this.#to = to;
    this.#across = to.width / from.width;
    this.#down = to.height / from.height;
    // One pixel more than a row has, for the share of the last that rounding gives to the one behind it.
    const samples = (to.width + 1) * SAMPLES;
    this.#row = new Float32Array(samples);
    this.#next = new Float32Array(samples);
    this.#line = new Float32Array(samples);
    this.#rgba = new Uint8Array(to.width * to.height * 4).fill(255);
  }

  /** Takes the next row from the top: three samples for each pixel. */
  add(rgb: Uint8Array): void {
    const line = this.#line.fill(0);
    const across = this.#across;
    for (let x = 0, at = 0; at < rgb.length; x++, at += SAMPLES) {
      const pixel = Math.floor(x * across);
      const here = Math.min(across, pixel + 1 - x * across);
      const behind = across - here;
      const target = pixel * SAMPLES;
      // Written out: it is done for each pixel of the source.
      line[target]! += rgb[at]! * here;
      line[target + 1]! += rgb[at + 1]! * here;
      line[target + 2]! += rgb[at + 2]! * here;
      if (behind === 0) continue;
      line[target + 3]! += rgb[at]! * behind;
      line[target + 4]! += rgb[at + 1]! * behind;
      line[target + 5]! += rgb[at + 2]! * behind;
    }
    const from = this.#taken * this.#down;
    this.#taken++;
    const above = Math.min(this.#down, Math.max(0, this.#made + 1 - from));
    const below = this.#down - above;
    for (let at = 0; at < line.length; at++) {
      this.#row[at]! += line[at]! * above;
      this.#next[at]! += line[at]! * below;
    }
    if (this.#taken * this.#down >= this.#made + 1 - 1e-6) this.#finishRow();
  }

  #finishRow(): void {
    if (this.#made >= this.#to.height) return;
    let target = this.#made * this.#to.width * 4;
    for (let at = 0; at < this.#to.width * SAMPLES; at += SAMPLES, target += 4) {
      for (let sample = 0; sample < SAMPLES; sample++)
        this.#rgba[target + sample] = Math.min(255, Math.round(this.#row[at + sample]!));
    }
    this.#made++;
    [this.#row, this.#next] = [this.#next, this.#row.fill(0)];
  }

  /** The result, four samples for each pixel and all of them opaque. */
  finish(): Uint8Array {
    this.#finishRow();
    return this.#rgba;
  }
}

/** A whole picture of 1 (grey), 3 or 4 samples for each pixel, made smaller; what is transparent is on white. */
export function scaled(pixels: Uint8Array, samples: 1 | 3 | 4, from: Size, to: Size): Uint8Array {
  const scaler = new Scaler(from, to);
  const rgb = new Uint8Array(from.width * SAMPLES);
  const stride = from.width * samples;
  for (let y = 0; y < from.height; y++) {
    const row = pixels.subarray(y * stride, (y + 1) * stride);
    if (samples === 3) scaler.add(row);
    else {
      if (samples === 4) onWhite(row, rgb);
      else for (let x = 0; x < row.length; x++) rgb.fill(row[x]!, x * SAMPLES, (x + 1) * SAMPLES);
      scaler.add(rgb);
    }
  }
  return scaler.finish();
}

/** Puts a row with transparency on white. */
export function onWhite(rgba: Uint8Array, rgb: Uint8Array): void {
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += SAMPLES) {
    const alpha = rgba[from + 3]! / 255;
    for (let sample = 0; sample < SAMPLES; sample++)
      rgb[to + sample] = Math.round(255 - (255 - rgba[from + sample]!) * alpha);
  }
}
