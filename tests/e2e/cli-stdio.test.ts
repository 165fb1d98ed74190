/** `sandbox-mcp stdio`, for clients that start a process, and the server that it starts. */
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { Client as NewClient } from "@modelcontextprotocol/client";
import { StdioClientTransport as NewTransport } from "@modelcontextprotocol/client/stdio";
import { Client } from "../clients/sdk1.ts";
import { StdioClientTransport } from "../clients/sdk1-stdio.ts";
import { readRunning } from "../../cli/running.ts";
import { runCLI } from "../setup/cli.ts";
import { waitForEnd, tree } from "../setup/processes.ts";
import { python, repository, TOKEN } from "../setup/server.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const directory = temporaryDirectory();
let stateDir: string;
let env: Record<string, string>;

beforeAll(() => {
  stateDir = join(directory, "state");
  env = {
    ...(process.env as Record<string, string>),
    SANDBOX_MCP_STATE_DIR: stateDir,
    SERVER_AUTH_TOKEN: TOKEN,
    SANDBOX_MCP_NETWORK: "none",
    // This Python has the packages of sandboxes, so the server does not install them.
    ...(python === undefined ? {} : { SANDBOX_MCP_PYTHON: python }),
  };
});

const info = { name: "e2e", version: "1" };
const start = (...words: string[]) => ({
  command: process.execPath,
  args: [join(repository, "cli/main.ts"), "stdio", ...words],
  env,
  stderr: "ignore" as const,
});

/** JSON-RPC messages as lines of standard input. */
const lines = (...messages: object[]) =>
  messages.map((message) => `${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`).join("");

it(
  "the first stdio process starts a server, which others share and which ends with that process",
  { timeout: 170_000 },
  async () => {
    const first = new Client(info);
    await first.connect(new StdioClientTransport(start()));
    const ran = await first.callTool({ name: "run_command", arguments: { command: "echo $((6 * 7))" } });
    expect(ran.content).toEqual([{ type: "text", text: "exit_code: 0\nstdout: 42" }]);
    const before = readRunning(stateDir);
    const server = tree(before?.pid ?? 0);
    expect(server.length).toBeGreaterThan(1);

    // The second bridge uses the same server. Its client speaks the newest protocol, and the bridge adds that
    // protocol's headers.
    const second = new NewClient(info, { versionNegotiation: { mode: { pin: "2026-07-28" } } });
    await second.connect(new NewTransport(start("--sandbox", "other")));
    const messages: unknown[] = [];
    const slow = await second.callTool(
      { name: "run_command", arguments: { command: "sleep 6; pwd" } },
      { onprogress: ({ message }) => void messages.push(message) },
    );
    expect([slow.isError, messages.length]).toEqual([
      undefined,
      expect.toSatisfy((count: number) => count > 0),
    ]);
    expect(readRunning(stateDir)).toEqual(before);
    const { resources } = await second.listResources();
    expect(resources.map(({ uri }) => uri)).toContain("sandbox://other/");

    // With its input closed, the bridge replies to all requests and exits.
    const input = lines({ id: 1, method: "ping" }, { id: 2, method: "tools/list" });
    const ended = await runCLI(["stdio"], { env }, `${input}no message\n`);
    expect([ended.code, ended.stderr]).toEqual([
      0,
      expect.stringContaining("This is not a JSON-RPC message"),
    ]);
    const responses = ended.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(responses.map(({ id }) => id).sort()).toEqual([1, 2]);

    // The server refuses the token: the client gets an error.
    const refused = await runCLI(
      ["stdio", "--token", "a-token-of-nobody"],
      { env },
      lines({ id: 7, method: "ping" }),
    );
    expect(JSON.parse(refused.stdout)).toMatchObject({
      id: 7,
      error: { message: expect.stringContaining("does not accept the token") },
    });

    // The server ends with the client that started it. The other client's call fails, and says that its command may
    // still run.
    const cut = second.callTool({ name: "run_command", arguments: { command: "sleep 300" } }).catch(String);
    await until(async () => {
      const listed = await first.callTool({ name: "list_runs", arguments: { sandbox: "other" } });
      return JSON.stringify(listed.content).includes("running");
    });
    await first.close();
    expect(JSON.stringify(await cut)).toMatch(
      /The server stopped during this call.*list_runs shows what became/,
    );
    expect(await waitForEnd(server)).toEqual([]);
    const repeated = await second.callTool({ name: "run_command", arguments: { command: "echo again" } });
    expect(repeated.content).toContainEqual({ type: "text", text: expect.stringContaining("again") });
    const after = readRunning(stateDir);
    expect(after?.pid).not.toBe(before?.pid);

    const last = tree(after?.pid ?? 0);
    await second.close();
    expect(await waitForEnd(last)).toEqual([]);
    expect(readRunning(stateDir)).toBeUndefined();
  },
);
