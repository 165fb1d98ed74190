/** A machine that can no longer make a sandbox: the errors for the caller and for the operator. */
import { mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { startServer } from "../setup/server.ts";
import { tool } from "../setup/tool.ts";

it("the error says that calling again does not help, and the log says why", async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "sandbox-mcp-e2e-"));
  const server = await startServer({ flags: ["--state-dir", stateDir] });
  try {
    const run = async () => await tool(server.url, "run_command", { command: "echo made" }, {});
    const boot = (await readdir(join(stateDir, "run"))).find((name) => /^[0-9a-f]{16}$/.test(name)) ?? "";
    // Every sandbox is shown this file.
    const file = join(stateDir, "run", boot, "files/etc/hostname");
    await rename(file, `${file}.away`);
    const { isError, text } = await run();
    expect([isError, text]).toEqual([true, expect.stringContaining("the operator has to act")]);
    expect(text).not.toContain(stateDir);
    expect(server.stderr()).toContain("This machine cannot make a sandbox: bwrap: ");
    await rename(`${file}.away`, file);
    expect((await run()).text).toContain("made");
  } finally {
    await server.stop();
    await rm(stateDir, { recursive: true, force: true });
  }
});
