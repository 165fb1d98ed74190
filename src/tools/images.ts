/** Images that clients can show. */

/** The largest image answered inline, in bytes: with a third more in base64 it stays under the 1 MB of some clients. */
export const IMAGE_BYTES = 700 * 1024;

const SIGNATURES: readonly [mimeType: string, signature: RegExp][] = [
  ["image/png", /^\u0089PNG/],
  ["image/jpeg", /^\u00ff\u00d8\u00ff/],
  ["image/gif", /^GIF8[79]a/],
  ["image/webp", /^RIFF....WEBP/s],
];

/** The type of image that starts with these bytes, or undefined. */
export function imageType(bytes: Uint8Array): string | undefined {
  const start = String.fromCharCode(...bytes.subarray(0, 12));
  return SIGNATURES.find(([, signature]) => signature.test(start))?.[0];
}
