/** Floods a preview with pieces of one byte, from its visitors or from its sandbox; see tiny-pieces.cjs. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { runFile } from "../../local/engine/host-programs.ts";
import type { Result } from "./mcp-client.ts";
import { repository } from "./server.ts";

const program = join(repository, "tests/setup/tiny-pieces.cjs");

const serve =
  "cat >/tmp/tiny.cjs; setsid -f node /tmp/tiny.cjs serve 8080 >/tmp/output 2>&1; until [ -s /tmp/output ]; do sleep 0.1; done; cat /tmp/output";

/**
 * Starts the program in the sandbox, and exposes its port. Returns a function that visits the preview: it takes the arguments
 * `PATH SOCKETS KIND SECONDS [MS]`, and resolves with the number of connections that got a response.
 */
export async function startFloodablePreview(
  call: (name: string, args: Record<string, unknown>) => Promise<Result>,
): Promise<(visit: readonly (string | number)[]) => Promise<number>> {
  const served = await call("run_command", { command: serve, stdin: readFileSync(program, "utf8") });
  if (!served.text.includes("serves")) throw new Error(served.text);
  const { text } = await call("expose_port", { port: 8080 });
  const { host, port } = new URL(/https?:\/\/[^\s)]+/.exec(text)?.[0] ?? "");
  return async (visit) => {
    const words = ["visit", port, host, ...visit.map(String)];
    const { stdout } = await runFile(process.execPath, [program, ...words]);
    return Number(/responses (\d+)/.exec(stdout)?.[1]);
  };
}
