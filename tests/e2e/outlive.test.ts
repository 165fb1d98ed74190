/** One principal's sandbox tries to outlive its end in a whole server, while another principal works. */
import { createHash, randomBytes, randomInt } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { outliveCommand } from "../setup/outlive.ts";
import { processes, survivors, tree, type Process } from "../setup/processes.ts";
import { startServer, type Server } from "../setup/server.ts";
import { callTool } from "../setup/tool.ts";

const other = randomBytes(24).toString("hex");
let server: Server;

beforeAll(async () => {
  const sha256 = createHash("sha256").update(other).digest("hex");
  const scopes = ["sandbox:read", "sandbox:write", "sandbox:exec"];
  server = await startServer({ env: { AUTH_TOKENS: JSON.stringify([{ name: "other", sha256, scopes }]) } });
});
afterAll(async () => {
  await server.stop();
});

async function attack(): Promise<Process[]> {
  const command = `sleep 86400.${randomInt(1e9)}`;
  await callTool(server.url, "run_command", { command: `setsid ${command} >/dev/null 2>&1 &` });
  const left = processes().filter((found) => found.command === command);
  expect(left).toHaveLength(1);
  await callTool(server.url, "run_command", { command: outliveCommand });
  return left;
}

it("destroy_sandbox ends it, and the other is answered before, meanwhile and after", async () => {
  const answered = async () =>
    expect(await callTool(server.url, "run_command", { command: "echo answered" }, other)).toContain(
      "answered",
    );
  const left = await attack();
  await answered();
  const destroyed = callTool(server.url, "destroy_sandbox", { sandbox: "default" });
  await answered();
  expect(await destroyed).toContain("destroyed");
  expect(await survivors(left, 0)).toEqual([]);
  await answered();
});

it("nothing of it is left by a server whose engine is killed", async () => {
  const left = await attack();
  const engine = tree(server.child.pid ?? 0).find(({ command }) => command.includes("local/engine/main.ts"));
  process.kill(engine?.pid ?? Number.NaN, "SIGKILL");
  expect(await survivors(left, 5000)).toEqual([]);
});
