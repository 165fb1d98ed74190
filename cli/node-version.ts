/** The Node that the command line and the server need. Imports nothing that an older one could not read. */
import { versions } from "node:process";

export const LEAST_NODE = 22;

export function isNewEnough(): boolean {
  return Number(versions.node.split(".")[0]) >= LEAST_NODE;
}
