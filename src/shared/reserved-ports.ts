/** Which ports of a sandbox `expose_port` can expose. The server uses two itself: sandboxd's, and one that depends on the platform. */
import { SANDBOXD_PORT } from "../../container/sandboxd/protocol.ts";

/** The port of the SDK's server in the image. The SDK cannot use another one. */
export const CLOUDFLARE_PORT = 3000;

/** The first port that needs no rights of root, as the SDK requires. */
export const FIRST_PORT = 1024;

let platformPort = CLOUDFLARE_PORT;

/** Called by the local platform, which uses another port. Returns the earlier one. */
export function reservePlatformPort(port: number): number {
  const before = platformPort;
  platformPort = port;
  return before;
}

export function canBeExposed(port: number): boolean {
  return port >= FIRST_PORT && port !== SANDBOXD_PORT && port !== platformPort;
}
