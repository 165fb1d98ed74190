#!/usr/bin/env node
/** The command `sandbox-mcp`. Looks at Node first: an older one would only say which word it does not know. */
import { versions } from "node:process";

const LEAST_NODE = 22;

const [major = "0"] = versions.node.split(".");
if (Number(major) < LEAST_NODE) {
  process.stderr.write(`sandbox-mcp needs Node ${LEAST_NODE} or newer, and this is ${versions.node}.\n`);
  process.exit(1);
}
await import("./main.ts");
