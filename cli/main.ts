/** The command line: `sandbox-mcp <command>`, and in the repository `npm run cli -- <command>`. */
import { enableCompileCache } from "node:module";
import { fileURLToPath } from "node:url";

// Most of the time of a short command goes into reading its modules. Not in /tmp, where others could write it.
enableCompileCache(fileURLToPath(new URL("../node_modules/.cache/sandbox-mcp", import.meta.url)));

const words = process.argv.slice(2);
if (words[0] === "start") {
  process.argv.splice(2, 1);
  await import("./start.ts");
} else {
  const { run } = await import("./run-program.ts");
  // A reader that has seen enough, such as head, is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit();
    throw error;
  });
  process.exitCode = await run(words);
}
