/** workerd has this part of Node's zlib; the Workers types lack it. */
declare module "node:zlib" {
  export function crc32(data: Uint8Array): number;
}
