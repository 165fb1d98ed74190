/** The program of `npm start` and `npm run cli`. Plain JavaScript, because the user's own Node runs it before `npm ci`. */
import { existsSync } from "node:fs";
import module from "node:module";
import { fileURLToPath } from "node:url";

if (existsSync(new URL("../node_modules/.package-lock.json", import.meta.url))) {
  // Set before main.ts is loaded, so that main.ts comes from the cache too, without loading Node's TypeScript compiler. Node 20 has no such
  // cache.
  module.enableCompileCache?.(fileURLToPath(new URL("../node_modules/.cache/sandbox-mcp", import.meta.url)));
  await import("./main.ts");
} else {
  console.error("The packages of this clone are not installed. Run: npm ci");
  process.exitCode = 1;
}
