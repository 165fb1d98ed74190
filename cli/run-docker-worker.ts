/**
 * Runs the Worker of `npm run dev:docker`: does what `wrangler dev` does, but opens no ports for debuggers. They require no token,
 * and `wrangler dev` has no option against them.
 *
 * Arguments: the port, and the Worker's variables as a JSON object.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { unstable_startWorker } from "wrangler";
import { root } from "./program-files.ts";

const [port = "", variables = ""] = process.argv.slice(2);
const bindings = Object.entries(JSON.parse(variables) as Record<string, string>).map(
  ([name, value]) => [name, { type: "secret_text" as const, value }] as const,
);
const worker = await unstable_startWorker({
  config: join(root, "wrangler.jsonc"),
  entrypoint: join(root, "local/docker-worker.ts"),
  bindings: Object.fromEntries(bindings),
  dev: {
    inspector: false,
    server: { hostname: "127.0.0.1", port: Number(port) },
    // A part of the tag of the image that wrangler builds.
    containerBuildId: randomUUID().slice(0, 8),
  },
});
for (const signal of ["SIGINT", "SIGTERM"] as const)
  process.once(signal, () => void worker.dispose().finally(() => process.exit()));
