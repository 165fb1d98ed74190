/** workerd has this of Node's; the types of Workers do not. */
declare module "node:zlib" {
  export function crc32(data: Uint8Array): number;
}
