/** The adapters of the client library, each with its framework's own package and a scripted model. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type SandboxServer, connect } from "../../client/index.ts";
import { computeOf, runAISDKAgent, runDeepAgent } from "../clients/framework-agents.ts";
import { type ScriptedCall, startOpenAIAPI } from "../setup/openai-api.ts";
import { type Server, TOKEN, startServer } from "../setup/server.ts";

let server: Server;
let client: SandboxServer;

beforeAll(async () => {
  server = await startServer();
  client = connect({ url: server.url, token: TOKEN });
});

afterAll(async () => {
  await client?.close();
  await server?.stop();
});

const CALLS: ScriptedCall[] = [
  { name: "write_file", arguments: { file_path: "/workspace/sum.py", content: "# sums\nprint(40 + 2)\n" } },
  { name: "execute", arguments: { command: "cd /tmp && python3 /workspace/sum.py; exit 3" } },
  { name: "read_file", arguments: { file_path: "/workspace/sum.py" } },
];

describe.each([
  ["deepagents", runDeepAgent],
  ["ai-sdk", runAISDKAgent],
] as const)("an agent of %s", (name, run) => {
  it("writes, executes and reads in the sandbox", async () => {
    const model = await startOpenAIAPI(CALLS);
    const sandbox = client.sandbox(name);
    try {
      expect(await run(sandbox, model.url, "Add the numbers.")).toContain("print(40 + 2)");
    } finally {
      model.close();
    }
    expect(await sandbox.runs()).toContainEqual(expect.objectContaining({ exitCode: 3, state: "failed" }));
    expect(await sandbox.files.readText("sum.py")).toBe("# sums\nprint(40 + 2)\n");
  });
});

it("ComputeSDK makes, uses, exposes, keeps and ends a sandbox", async () => {
  const compute = computeOf({ url: server.url, token: TOKEN });
  const made = await compute.sandbox.create({ envs: { GREETING: "hello" } });
  const parts: string[] = [];
  const options = { cwd: "/tmp", onStdout: (text: string) => void parts.push(text) };
  const run = await made.runCommand("echo $GREETING; pwd; echo oops >&2; exit 4", options);
  expect(run).toMatchObject({ stdout: "hello\n/tmp\n", stderr: "oops\n", exitCode: 4 });
  expect(parts.join("")).toBe("hello\n/tmp\n");

  await made.filesystem.mkdir("/workspace/a b");
  await made.filesystem.writeFile("/workspace/a b/c.txt", "kept");
  expect(await made.filesystem.readdir("/workspace/a b")).toMatchObject([
    { name: "c.txt", type: "file", size: 4 },
  ]);
  expect(await made.filesystem.exists("/workspace/a b/d.txt")).toBe(false);

  await made.runCommand("python3 -m http.server 8000", { background: true });
  expect(await made.getUrl({ port: 8000 })).toMatch(/^http:\/\/8000-/);
  expect(await made.getInfo()).toMatchObject({ status: "running" });

  const snapshot = await compute.snapshot.create(made.sandboxId);
  const fork = await compute.sandbox.create({ snapshotId: snapshot.id });
  expect(await fork.filesystem.readFile("/workspace/a b/c.txt")).toBe("kept");
  await compute.snapshot.delete(snapshot.id);
  await Promise.all([made.destroy(), fork.destroy()]);
  expect(await compute.sandbox.getById(made.sandboxId)).toBe(null);
});
