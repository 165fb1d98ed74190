/** The first call to a server finds a sandbox that was started before it. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { survivors, tree } from "../setup/processes.ts";
import { type Server, startServer } from "../setup/server.ts";
import { next, whichCommand } from "../setup/start-ahead.ts";
import { tool } from "../setup/tool.ts";

let stateDir: string;
let server: Server;
beforeEach(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "sandbox-mcp-e2e-"));
  server = await startServer({ flags: ["--state-dir", stateDir] });
});
afterEach(async () => {
  await server.stop();
  await rm(stateDir, { recursive: true, force: true });
});

/** The directory of the server's engine. */
async function engineDirectory(): Promise<string> {
  const run = join(stateDir, "run");
  return join(run, (await readdir(run)).find((name) => /^[0-9a-f]{16}$/.test(name)) ?? "");
}

it("the first call gets the sandbox that was started ahead, and a call in another sandbox the next one", async () => {
  const which = async (sandbox: string) =>
    (await tool(server.url, "run_command", { sandbox, command: whichCommand }, {})).text;
  const engine = await engineDirectory();
  const first = await next(engine);
  expect(await which("one")).toContain(first.which);
  const second = await next(engine, [first.name]);
  expect(await which("two")).toContain(second.which);
  expect(await which("one")).toContain(first.which);
});

it.each([
  ["engine", /local\/engine\/main\.ts/],
  ["server", /cli\/main\.ts start/],
] as const)("nothing of it is left when the %s is killed while it waits", async (_, killed) => {
  const { pid } = await next(await engineDirectory());
  const ahead = tree(pid);
  expect(ahead.length).toBeGreaterThan(2);
  const found = tree(server.child.pid ?? Number.NaN).filter(
    ({ command }) => killed.test(command) && !command.startsWith("sh "),
  );
  expect(found).toHaveLength(1);
  process.kill(found[0]?.pid ?? Number.NaN, "SIGKILL");
  expect(await survivors(ahead, 15_000)).toEqual([]);
});
