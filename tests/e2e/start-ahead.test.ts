/** The first call to a server finds a sandbox that was started before it. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { startServer } from "../setup/server.ts";
import { next, whichCommand } from "../setup/start-ahead.ts";
import { tool } from "../setup/tool.ts";

it("the first call gets the sandbox that was started ahead, and that of another sandbox the next one", async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "sandbox-mcp-e2e-"));
  const server = await startServer({ flags: ["--state-dir", stateDir] });
  try {
    const which = async (sandbox: string) =>
      (await tool(server.url, "run_command", { sandbox, command: whichCommand }, {})).text;
    const run = join(stateDir, "run");
    const engine = join(run, (await readdir(run)).find((name) => /^[0-9a-f]{16}$/.test(name)) ?? "");
    const first = await next(engine);
    expect(await which("one")).toContain(first.which);
    const second = await next(engine, [first.name]);
    expect(await which("two")).toContain(second.which);
    expect(await which("one")).toContain(first.which);
  } finally {
    await server.stop();
    await rm(stateDir, { recursive: true, force: true });
  }
});
