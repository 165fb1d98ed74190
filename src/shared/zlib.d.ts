/** workerd has these parts of Node's zlib; the Workers types lack them. */
declare module "node:zlib" {
  export function crc32(data: Uint8Array): number;
  export function inflateSync(data: Uint8Array, options: { maxOutputLength: number }): Uint8Array;
}
