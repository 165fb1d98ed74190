/** The command line: `sandbox-mcp <command>`, and in the repository `npm run cli -- <command>`. */
import { enableCompileCache } from "node:module";
import { fileURLToPath } from "node:url";

// Caches compiled modules, because loading modules takes most of a short command's time. The cache is not in /tmp, because other
// users could write there.
const cache = fileURLToPath(new URL("../node_modules/.cache/sandbox-mcp", import.meta.url));
enableCompileCache(cache);

const words = process.argv.slice(2);
if (words[0] === "start") {
  process.argv.splice(2, 1);
  // The engine uses the cache, too.
  process.env.NODE_COMPILE_CACHE ??= cache;
  await import("./start.ts");
} else {
  const { run } = await import("./run-program.ts");
  // A reader that stops early, such as head, is not an error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit();
    throw error;
  });
  process.exitCode = await run(words);
}
