#!/usr/bin/env node
/** The command `sandbox-mcp`. Checks Node's version first, because an older one would only report a syntax error. */
import { versions } from "node:process";
import { isNewEnough, NEEDED_NODE } from "./node-version.ts";

if (!isNewEnough()) {
  process.stderr.write(`sandbox-mcp needs ${NEEDED_NODE}, and this is ${versions.node}.\n`);
  process.exit(1);
}
await import("./main.ts");
