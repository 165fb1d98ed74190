/**
 * Runs the Worker of `npm run dev:docker`: does what `wrangler dev` does, but opens no ports for debuggers. They require no token,
 * and `wrangler dev` has no option against them.
 *
 * The first argument is the port. WORKER_VARIABLES has the Worker's variables as a JSON object. They are not an argument, because
 * every user of the machine can read arguments.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { unstable_startWorker } from "wrangler";
import { root } from "./program-files.ts";

const { WORKER_VARIABLES = "{}" } = process.env;
const bindings = Object.entries(JSON.parse(WORKER_VARIABLES) as Record<string, string>).map(
  ([name, value]) => [name, { type: "secret_text" as const, value }] as const,
);
const worker = await unstable_startWorker({
  config: join(root, "wrangler.jsonc"),
  entrypoint: join(root, "local/docker-worker.ts"),
  bindings: Object.fromEntries(bindings),
  dev: {
    inspector: false,
    server: { hostname: "127.0.0.1", port: Number(process.argv[2]) },
    // A part of the tag of the image that wrangler builds.
    containerBuildId: randomUUID().slice(0, 8),
  },
});
for (const signal of ["SIGINT", "SIGTERM"] as const)
  process.once(signal, () => void worker.dispose().finally(() => process.exit()));
