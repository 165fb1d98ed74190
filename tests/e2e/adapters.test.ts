/** The adapters of the client library, each with its real framework and a scripted model. */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, inject, it } from "vitest";
import { runFile } from "../../local/engine/host-programs.ts";
import { aiSandbox } from "../../client/adapters/ai-sdk.ts";
import { sandboxMCP } from "../../client/adapters/computesdk.ts";
import { deepAgentsBackend } from "../../client/adapters/deepagents.ts";
import { openAISandboxes } from "../../client/adapters/openai-agents.ts";
import { connect } from "../../client/index.ts";
import { compute as computeOf } from "../clients/computesdk.ts";
import { textAt } from "../setup/preview.ts";
import { endLater } from "../setup/end-later.ts";
import { type ScriptedCall, startOpenAIAPI } from "../setup/openai-api.ts";
import { TOKEN, repository } from "../setup/server.ts";
import { until } from "../setup/until.ts";

const server = inject("server");
const client = endLater(connect({ url: server.url, token: TOKEN }));

/** Runs an example. Returns the last message of its agent, which repeats the results of its tools. */
async function runAgent(example: string, script: readonly ScriptedCall[]): Promise<string> {
  const model = await startOpenAIAPI(script);
  const access = { SANDBOX_MCP_URL: server.url, SANDBOX_MCP_TOKEN: TOKEN };
  const env = { ...process.env, ...access, OPENAI_BASE_URL: model, OPENAI_API_KEY: "any" };
  const program = join(repository, "examples", example);
  return (await runFile(process.execPath, [program, "Add the numbers."], { env, cwd: tmpdir() })).stdout;
}

const SUM = "# sums\nprint(40 + 2)\n";

const CALLS: ScriptedCall[] = [
  { name: "write_file", arguments: { file_path: "/workspace/sum.py", content: SUM } },
  { name: "execute", arguments: { command: "cd /tmp && python3 /workspace/sum.py; exit 3" } },
  { name: "read_file", arguments: { file_path: "/workspace/sum.py" } },
  { name: "execute", arguments: { command: "nohup python3 -m http.server 8000 >/dev/null 2>&1 &" } },
  { name: "expose", arguments: { port: 8000 } },
];

const OPENAI_CALLS: ScriptedCall[] = [
  patchCall("*** Add File: sum.py", "+# sums", "+print(40 + 1)", "+"),
  patchCall("*** Update File: sum.py", "@@", " # sums", "-print(40 + 1)", "+print(40 + 2)"),
  { name: "exec_command", arguments: { cmd: "cat sum.py; cd /tmp && python3 /workspace/sum.py; exit 3" } },
  {
    name: "exec_command",
    arguments: { cmd: "read -p 'Name? ' n; echo $n > name", tty: true, yield_time_ms: 0 },
  },
  { name: "write_stdin", arguments: { session_id: 2, chars: "Ada\n", yield_time_ms: 30_000 } },
  { name: "exec_command", arguments: { cmd: 'nohup python3 -m http.server "$PORT" >/dev/null 2>&1 &' } },
  { name: "exec_command", arguments: { cmd: "cat name numbers.txt" } },
  { name: "expose", arguments: { port: 8000 } },
];

it.each([
  ["deepagents.ts", "deepagents-example", CALLS, ""],
  ["ai-sdk-sandbox.ts", "ai-sdk-sandbox-example", CALLS, ""],
  ["computesdk.ts", "computesdk-example", CALLS, ""],
  ["openai-sandbox-agent.ts", "openai-sandbox-example", OPENAI_CALLS, "Ada\n40\n2\n"],
])(
  "the agent of %s writes files, runs commands, reads files and exposes ports",
  async (example, name, calls, printed) => {
    const answer = await runAgent(example, calls);
    for (const text of ["print(40 + 2)", "42", printed]) expect(answer).toContain(text);
    const [url = ""] = /http:\/\/8000-\S+?\//.exec(answer) ?? [];
    await until(async () => (await textAt(new URL("sum.py", url))) === SUM);
    const used = client.sandbox(name);
    expect(await used.runs()).toContainEqual(expect.objectContaining({ exitCode: 3, state: "failed" }));
    expect(await used.files.readText("sum.py")).toBe(SUM);
  },
);

/** A command that changes its shell: PATH, a variable, the umask and two functions. */
const SPOIL = "export PATH=/none V=first; umask 077; [() { :; }; stat() { :; }; export -f stat";
/** Shows whether the shell was changed: it prints a variable, the umask and the result of `[`. */
const SEEN = "echo [$V]; umask; [ -e /nope ] || echo clean";
const CLEAN = "[]\n0022\nclean\n";

/** Several tests use one sandbox, because each sandbox takes 0.5 s of processor time. */
const sandbox = client.sandbox("adapters");

describe("a command changes only its own shell", () => {
  it("with the AI SDK", async () => {
    const session = aiSandbox(sandbox);
    await session.run({ command: SPOIL });
    const results = await Promise.all([1, 2, 3].map(() => session.run({ command: SEEN })));
    expect(results.map(({ stdout }) => stdout)).toEqual([CLEAN, CLEAN, CLEAN]);
    expect(await session.stat({ path: "/etc" })).toMatchObject({ type: "directory" });
  });

  it("with deepagents", async () => {
    const backend = deepAgentsBackend(sandbox);
    await backend.execute(SPOIL);
    expect((await backend.execute(SEEN)).output).toBe(CLEAN);
    await backend.write("/workspace/a.txt", "kept");
    expect((await backend.ls("/workspace")).files).toMatchObject([{ path: "/workspace/a.txt" }]);
    expect((await backend.read("/workspace/a.txt")).content).toContain("kept");
  });

  it("with ComputeSDK", async () => {
    const created = await sandboxMCP({ url: server.url, token: TOKEN }).sandbox.create({
      name: "clean-compute",
    });
    await created.runCommand(SPOIL);
    expect((await created.runCommand(SEEN)).stdout).toBe(CLEAN);
    await created.filesystem.mkdir("/workspace/made");
    expect([
      await created.filesystem.exists("/workspace/made"),
      await created.filesystem.exists("/nope"),
    ]).toEqual([true, false]);
  });

  it("with the OpenAI Agents SDK", async () => {
    const session = await openAISandboxes(client, { name: "clean-openai" }).create!({});
    await session.exec!({ cmd: SPOIL, yieldTimeMs: 60_000 });
    expect(await session.exec!({ cmd: SEEN, yieldTimeMs: 60_000 })).toMatchObject({ stdout: CLEAN });
    expect(await session.pathExists!("/nope")).toBe(false);
    expect((await session.persistWorkspace!()).length).toBeGreaterThan(0);
  });
});

it("deepagents gets the names of a batch's files that could not be written", async () => {
  const bytes = new TextEncoder().encode("kept");
  const files: [string, Uint8Array][] = [
    ["/proc/x/y", bytes],
    ["/workspace/good.txt", bytes],
  ];
  expect(await deepAgentsBackend(sandbox).uploadFiles(files)).toEqual([
    { path: "/proc/x/y", error: expect.any(String) },
    { path: "/workspace/good.txt", error: null },
  ]);
  expect(await sandbox.files.readText("good.txt")).toBe("kept");
});

it("the AI SDK gets the endpoint of a port, for requests and for WebSockets", async () => {
  const session = aiSandbox(sandbox, { ports: [8000] });
  expect(session.ports).toEqual([8000]);
  await session.run({
    command: "echo served > index.html; nohup python3 -m http.server 8000 >/dev/null 2>&1 &",
  });
  const { url } = await session.getPortEndpoint({ port: 8000 });
  await until(async () => (await textAt(new URL(url))) === "served\n");
  const socket = await session.getPortEndpoint({ port: 8000, protocol: "ws" });
  expect(socket.url).toBe(url.replace(/^http/, "ws"));
});

it("ComputeSDK stops a command after the command's time limit, or else after the sandbox's", async () => {
  const compute = computeOf({ provider: sandboxMCP({ url: server.url, token: TOKEN }) });
  const created = await compute.sandbox.create({ timeout: 1000 });
  expect(await created.getInfo()).toMatchObject({ timeout: 1000 });
  expect((await created.runCommand("sleep 300")).exitCode).toBe(124);
  expect((await created.runCommand("sleep 2", { timeout: 60_000 })).exitCode).toBe(0);
  expect((await created.runCommand("sleep 300", { timeout: 2000 })).exitCode).toBe(124);
  await created.destroy();
});

it("ComputeSDK creates, uses, exposes, saves and destroys a sandbox", async () => {
  const compute = computeOf({ provider: sandboxMCP({ url: server.url, token: TOKEN }) });
  const created = await compute.sandbox.create({ envs: { GREETING: "hello" } });
  const parts: string[] = [];
  const options = { cwd: "/tmp", onStdout: (text: string) => void parts.push(text) };
  const run = await created.runCommand("echo $GREETING; pwd; echo oops >&2; exit 4", options);
  expect(run).toMatchObject({ stdout: "hello\n/tmp\n", stderr: "oops\n", exitCode: 4 });
  expect(parts.join("")).toBe("hello\n/tmp\n");

  await created.filesystem.mkdir("/workspace/a b");
  await created.filesystem.writeFile("/workspace/a b/c.txt", "kept");
  expect(await created.filesystem.readdir("/workspace/a b")).toMatchObject([
    { name: "c.txt", type: "file", size: 4 },
  ]);
  expect(await created.filesystem.exists("/workspace/a b/d.txt")).toBe(false);

  await created.runCommand("python3 -m http.server 8000", { background: true });
  expect(await created.getUrl({ port: 8000 })).toMatch(/^http:\/\/8000-/);
  expect(await created.getInfo()).toMatchObject({ status: "running" });

  const snapshot = await compute.snapshot.create(created.sandboxId);
  const fork = await compute.sandbox.create({ snapshotId: snapshot.id });
  expect(await fork.filesystem.readFile("/workspace/a b/c.txt")).toBe("kept");
  await compute.snapshot.delete(snapshot.id);
  await Promise.all([created.destroy(), fork.destroy()]);
  expect(await compute.sandbox.getById(created.sandboxId)).toBe(null);
});

describe("the OpenAI Agents SDK", () => {
  it("creates, fills, exposes, resumes and destroys a sandbox", async () => {
    const sandboxes = openAISandboxes(client);
    const image = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
    const entries = {
      "a b/c.txt": { type: "file", content: "kept", permissions: "-rwx------" },
      "dot.png": { type: "file", content: image },
    } as const;
    const created = await sandboxes.create!({ manifest: { entries, environment: { GREETING: "hello" } } });
    const { name } = created.state;
    expect(await created.readFile!({ path: "a b/c.txt", maxBytes: 2 })).toEqual(
      new TextEncoder().encode("ke"),
    );
    expect(await created.listDir!({ path: "a b" })).toEqual([
      { name: "c.txt", path: "a b/c.txt", type: "file" },
    ]);
    expect(await created.viewImage!({ path: "dot.png" })).toEqual({
      type: "image",
      image: { data: image, mediaType: "image/png" },
    });
    expect([await created.pathExists!("a b/d"), await created.directoryExists!("a b")]).toEqual([
      false,
      true,
    ]);
    const cmd = "echo $GREETING; stat -c %a 'a b/c.txt'; echo oops >&2; exit 4";
    expect(await created.exec!({ cmd, yieldTimeMs: 60_000 })).toMatchObject({
      stdout: "hello\n700\n",
      stderr: "oops\n",
      exitCode: 4,
    });

    const commit =
      "git init -q /tmp/repo; cd /tmp/repo; mkdir lib; echo code > lib/x; git add .; git -c user.name=a -c user.email=a@b commit -qm x";
    await created.exec!({ cmd: commit, yieldTimeMs: 60_000 });
    const entry = { type: "git_repo", repo: "file:///tmp/repo", subpath: "lib" } as const;
    await created.materializeEntry!({ path: "vendored", entry });
    const local = { type: "local_dir", src: "/etc" } as const;
    await expect(created.materializeEntry!({ path: "local", entry: local })).rejects.toThrow(/local_dir/);

    const archive = await created.persistWorkspace!();
    await created.exec!({ cmd: "rm -rf vendored; echo later > later", yieldTimeMs: 60_000 });
    await expect(created.hydrateWorkspace!("no archive")).rejects.toThrow(/tar/);
    expect(await created.pathExists!("later")).toBe(true);
    await created.hydrateWorkspace!(archive);
    expect([await created.pathExists!("later"), await created.pathExists!("a b/c.txt")]).toEqual([
      false,
      true,
    ]);

    const state = await sandboxes.deserializeSessionState!(
      await sandboxes.serializeSessionState!(created.state),
    );
    const resumed = await sandboxes.resume!(state);
    expect(await resumed.readFile!({ path: "vendored/x" })).toEqual(new TextEncoder().encode("code\n"));
    await expect(resumed.readFile!({ path: "vendored/y" })).rejects.toThrow("vendored/y was not found");
    const serving = await resumed.exec!({ cmd: "exec python3 -u -m http.server 8000", yieldTimeMs: 0 });
    const { sessionId = 0 } = serving;
    // A command in another session does not wait until the web server ends.
    expect(await created.exec!({ cmd: "true", yieldTimeMs: 60_000 })).toMatchObject({ exitCode: 0 });
    let printed = "";
    while (!printed.includes("Serving")) printed += await resumed.writeStdin!({ sessionId });
    const { url = "" } = await resumed.resolveExposedPort!(8000);
    expect(url).toMatch(/^http:\/\/8000-/);
    expect(await resumed.writeStdin!({ sessionId, chars: "\u0003" })).toContain("exited with code 130");
    expect(await resumed.writeStdin!({ sessionId })).toContain("has ended");

    await created.close!();
    expect((await client.list()).sandboxes.map((each) => each.name)).not.toContain(name);
    await expect(sandboxes.resume!(state)).rejects.toThrow(name);
  });
});

function patchCall(...lines: string[]): ScriptedCall {
  return {
    name: "apply_patch",
    arguments: { patch: ["*** Begin Patch", ...lines, "*** End Patch"].join("\n") },
  };
}
