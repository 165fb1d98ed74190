/** The client or the server ends during a task. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runClaudeCode } from "../setup/claude-code.ts";
import { type MessagesAPI, toolResults } from "../setup/messages-api.ts";
import { waitForEnd, tree } from "../setup/processes.ts";
import { bash, playScenarios, say, use } from "../setup/scripted-agent.ts";
import { type Server, type ServerOptions, startServer, TOKEN } from "../setup/server.ts";
import { sleep } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { TaskClient } from "./task-client.ts";

let api: MessagesAPI;
const stateDir = temporaryDirectory();
const home = temporaryDirectory();
let options: ServerOptions;
let server: Server;
/** The results that the client's model received. */
const receivedResults: string[] = [];

beforeAll(async () => {
  const task = { sandbox: "client", repository: "/workspace/origin.git" };
  api = await playScenarios({
    fix: [
      bash("sleep 3"),
      use("Edit", { file_path: "/workspace/origin/sum.py", old_string: "a - b", new_string: "a + b" }),
      say("Fixed the sum."),
    ],
    ask: (request, turn) => {
      if (turn === 0)
        return use("mcp__sandbox__execute_task", { ...task, task: "[[fix]] The sum", wait_seconds: 1 });
      receivedResults.push(JSON.stringify(toolResults(request)));
      return say("It goes on.");
    },
    fetch: (request, turn) => {
      const id = /client\.[0-9a-z]{26}t/.exec(receivedResults.join())?.[0];
      if (turn === 0) return use("mcp__sandbox__get_result", { id });
      receivedResults.push(JSON.stringify(toolResults(request)));
      return say("I have it.");
    },
    wait: [bash("echo begun; sleep 300"), say("not reached")],
  });
  options = {
    flags: ["--state-dir", stateDir],
    env: { ANTHROPIC_API_KEY: "sk-ant-real", ANTHROPIC_UPSTREAM_URL: api.url },
  };
  server = await startServer(options);
});

afterAll(async () => {
  await server?.stop();
  await api?.close();
  for (const directory of [stateDir, home]) rmSync(directory, { recursive: true, force: true });
});

/** Runs Claude Code with the server's tools. */
async function claude(prompt: string): Promise<string> {
  const connection = { type: "http", url: server.url, headers: { Authorization: `Bearer ${TOKEN}` } };
  const config = join(home, "mcp.json");
  writeFileSync(config, JSON.stringify({ mcpServers: { sandbox: connection } }));
  const flags = ["--mcp-config", config, "--strict-mcp-config", "--allowedTools", "mcp__sandbox"];
  return runClaudeCode(home, ["-p", prompt, ...flags], api.url);
}

describe("a client that hands over tasks", () => {
  it("Claude Code hands over a task, and a second Claude Code process gets the diff", async () => {
    const client = new TaskClient(server.url);
    await client.sh(
      "client",
      `git init -q /tmp/seed && cd /tmp/seed && printf 'def total(a, b):\\n    return a - b\\n' > sum.py &&
       git add -A && git -c user.name=a -c user.email=a@b commit -qm one && git clone -q --bare . /workspace/origin.git`,
    );
    expect(await claude("[[ask]] Fix it")).toContain("It goes on.");
    expect(receivedResults[0]).toMatch(/Wait with get_result, id client\.[0-9a-z]{26}t/);
    expect(await claude("[[fetch]] Is it fixed?")).toContain("I have it.");
    expect(receivedResults[1]).toContain("Fixed the sum.");
    expect(receivedResults[1]).toContain("-    return a - b\\n+    return a + b");
  });
});

describe("when the server is killed in the middle of a task", () => {
  it("the task's record says after the restart what happened, and has the agent's text until then", async () => {
    const client = new TaskClient(server.url);
    const { fields } = await client.call("execute_task", { task: "[[wait]] x", wait_seconds: 0 });
    const log = async (from: typeof client) =>
      (await from.call("get_result", { id: fields.id, cursor: 0 })).text;
    await expect.poll(() => log(client)).toContain("Bash: echo begun");
    // The server stores output within a second.
    await sleep(1500);
    const all = tree(server.child.pid ?? 0);
    const agents = all.filter(({ command }) => command.startsWith("claude -p --output-format stream-json"));
    expect(agents).toHaveLength(1);
    process.kill(all.find(({ command }) => /workerd serve/.test(command))?.pid ?? Number.NaN, "SIGKILL");
    await server.exited;
    expect(await waitForEnd(agents, 2000)).toEqual([]);

    server = await startServer(options);
    const nextClient = new TaskClient(server.url);
    const result = await nextClient.call("get_result", { id: fields.id });
    expect(result.text).toContain("state: lost");
    expect(result.text).toContain("stopped while the server was down");
    expect(await log(nextClient)).toContain("Bash: echo begun");
    expect((await nextClient.call("list_runs", { kind: "task" })).text).toContain(`${fields.id} task lost`);
  });
});
