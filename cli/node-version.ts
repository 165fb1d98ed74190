/**
 * The Node that the command line and the server need: `engines` in package.json, which tests/node/versions.test.ts compares.
 * Imports nothing that an older one could not read.
 */
import { versions } from "node:process";

/** As a sentence has it. The engine reads the machine's certificates by `getCACertificates`, which 22.15 was the first to have. */
export const NEEDED_NODE = "Node 22.15 or a newer 22, or 24 or newer";

export function isNewEnough(version: string = versions.node): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major >= 24 || (major === 22 && minor >= 15);
}
