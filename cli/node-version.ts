/** The required Node version, as in `engines` of package.json. This file imports nothing that older versions cannot parse. */
import { versions } from "node:process";

/** Node 22.15 introduced `getCACertificates`, with which the local server reads the machine's certificates. */
export const NEEDED_NODE = "Node 22 (22.15 or newer) or Node 24 or newer";

export function isNewEnough(version: string = versions.node): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major >= 24 || (major === 22 && minor >= 15);
}
