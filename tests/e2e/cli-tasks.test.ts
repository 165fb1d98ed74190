/** The command line against a server with a model: questions, tasks, clients, checks and scripts. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { type CLIOptions, commandsWith, runCLI, runHere, startCLI } from "../setup/cli.ts";
import { runClaudeCode } from "../setup/claude-code.ts";
import { endLater } from "../setup/end-later.ts";
import { idIn, MCPClient } from "../setup/mcp-client.ts";
import { bash, playScenarios, say, use, writeProgram } from "../setup/scripted-agent.ts";
import { repository, startServer, TOKEN } from "../setup/server.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

/** A token that may only read. */
const READER = "a-token-that-may-only-read";
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

const stateDir = temporaryDirectory();
const directory = temporaryDirectory();
const local: CLIOptions = {
  env: { SANDBOX_MCP_STATE_DIR: stateDir, SERVER_AUTH_TOKEN: TOKEN },
  cwd: directory,
};
const { run, json } = commandsWith(local);

const api = endLater(
  await playScenarios({
    write: [use("Write", { file_path: "/workspace/a.txt", content: "first\n" }), say("It is written.")],
    sleep: [bash("echo started; sleep 300"), say("woke up")],
    answer: [writeProgram("print(6 * 7)")],
    raise: [writeProgram("raise ValueError('no such thing')")],
    wait: [writeProgram("import time\nprint('begun', flush=True)\ntime.sleep(300)")],
    hang: ["hang"],
    decline: [say("I would rather not.")],
  }),
);
const COMPONENTS = join(directory, "definitions");
for (const kind of ["agents", "commands"]) mkdirSync(join(COMPONENTS, kind), { recursive: true });
writeFileSync(join(COMPONENTS, "commands/write.md"), "[[write]] Write $ARGUMENTS.");
const server = endLater(
  await startServer({
    flags: ["--state-dir", stateDir],
    env: {
      ANTHROPIC_API_KEY: "test-model-key",
      ANTHROPIC_UPSTREAM_URL: api.url,
      COMPONENTS,
      TASK_ARCHIVE_MAX_MB: "0",
      AUTH_TOKENS: JSON.stringify([{ name: "reader", sha256: sha256(READER), scopes: ["sandbox:read"] }]),
    },
  }),
);

describe("ask", () => {
  it("prints the program's output, and the program on standard error", async () => {
    // Nothing is printed about the sandbox that the question uses.
    const result = await run(["ask", "[[answer]] What is 6 times 7?"]);
    expect(result).toEqual({ code: 0, stdout: "42\n", stderr: "print(6 * 7)\n" });
    const sent = api.requests.at(-1);
    expect(sent?.headers["x-api-key"]).toBe("test-model-key");
    expect(await json(["ask", "--sandbox", "default", "--model", "other", "[[answer]] x"])).toMatchObject({
      success: true,
      state: "succeeded",
      language: "python",
      code: "print(6 * 7)",
      stdout: "42\n",
      model: "other",
    });
    const failed = await run(["ask", "--sandbox", "default", "[[raise]] x"]);
    expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining("no such thing") });
  });

  it("prints why the model wrote no program", async () => {
    const stderr =
      'The model wrote no program. Ask for a result that a program can print, or use execute_task. The model wrote: "I would rather not."\n';
    expect(await run(["ask", "[[decline]] x"])).toEqual({ code: 1, stdout: "", stderr });
  });

  it("stops on Ctrl-C, both while the model writes and while the program runs", async () => {
    const start = (name: string) => {
      const command = startCLI(["ask", "--sandbox", "default", `[[${name}]] x`], local);
      command.stdin.end();
      return command;
    };
    const before = api.requests.length;
    const writing = start("hang");
    await until(() => api.requests.length > before);
    const running = start("wait");
    await until(() => running.stdout() === "begun\n");
    for (const command of [writing, running]) {
      command.kill("SIGINT");
      expect(await command.ended).toMatchObject({ code: 130 });
    }
    const { code, stdout } = await run(["ask", "--wait", "0", "--json", "[[hang]] x"]);
    expect([code, JSON.parse(stdout)]).toMatchObject([75, { success: false, state: "running" }]);
    await run(["cancel", JSON.parse(stdout).id]);
  });

  it("refuses a language other than Python and TypeScript", async () => {
    const refused = await run(["ask", "x", "--language", "javascript"]);
    expect(refused).toMatchObject({
      code: 64,
      stdout: "",
      stderr: expect.stringContaining("python, typescript"),
    });
  });
});

describe("execute", () => {
  it("prints the answer, and on standard error the agent's steps and changes; the task may name definitions that the operator added after the server's start", async () => {
    const reviewer = "---\nname: reviewer\ndescription: looks for mistakes\n---\nLook for them.";
    writeFileSync(join(directory, "definitions/agents/reviewer.md"), reviewer);
    const named = ["--subagent", "reviewer", "--command", "write"];
    const { code, stdout, stderr } = await run(["execute", ...named, "/write it"]);
    expect([code, stdout]).toEqual([0, "It is written.\n"]);
    expect(stderr).toMatch(/^Task task-\S+t\n[^]*Write a\.txt[^]*created a\.txt \(6 B\)\nsucceeded, /);
    const prompt = JSON.stringify(api.requests.at(-1)?.body);
    expect(prompt).toContain("[[write]] Write it.");
    expect(prompt).toContain("reviewer: looks for mistakes");
    expect(await run(["execute", "--subagent", "none", "--subagent", "reviewer", "x"])).toMatchObject({
      code: 70,
      stderr: expect.stringContaining(
        "There is no agents/none. The operator offers agents/reviewer, commands/write.",
      ),
    });
  });

  it.each([
    ["directory", (path: string) => mkdirSync(path), "it is a directory"],
    ["gone", (path: string) => symlinkSync("nowhere", path), "its file is a broken link"],
  ])("prints why a definition in the operator's folder cannot be used: %s", async (name, make, why) => {
    const path = join(directory, `definitions/commands/${name}.md`);
    make(path);
    const { code, stderr } = await run(["execute", "--command", name, "x"]);
    rmSync(path, { recursive: true });
    expect([code, stderr]).toEqual([
      70,
      expect.stringContaining(`The operator's commands/${name} cannot be used: ${why}. Leave it out.`),
    ]);
  });

  it("continues no ended task with TASK_ARCHIVE_MAX_MB=0, because the server keeps no archive", async () => {
    const ended = await json(["execute", "[[write]] Write it."]);
    expect(ended).toMatchObject({ success: true, note: "" });
    expect(ended).not.toHaveProperty("next");
    const { code, stderr } = await run(["execute", "--continue-from", String(ended.id), "[[write]] x"]);
    expect([code, stderr]).toEqual([70, expect.stringContaining("its files were not kept")]);
  });

  it("lets the agent continue after Ctrl-C, and prints how to return to it", async () => {
    const running = startCLI(["execute", "[[sleep]] Wait."], local);
    running.stdin.end();
    await until(() => running.stderr().includes("sleep 300"));
    running.kill("SIGINT");
    const { code, stderr } = await running.ended;
    expect([code, stderr]).toEqual([
      130,
      expect.stringContaining("The run continues. To follow it: sandbox-mcp result "),
    ]);
    const id = idIn({ text: stderr });
    expect(await run(["result", "--wait", "0", id])).toMatchObject({ code: 75 });
    expect(await json(["cancel", id])).toMatchObject({ success: true, id, state: "cancelled" });
    expect(await run(["result", id])).toMatchObject({ code: 130 });
  });

  it("prints only the id with --detach", async () => {
    const { code, stdout } = await run(["execute", "--detach", "[[sleep]] Wait."]);
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^task-\S+t\n$/)]);
    const id = stdout.trim();
    expect(await run(["result", "--wait", "0", id])).toMatchObject({ code: 75 });
    expect(await json(["cancel", id])).toMatchObject({ success: true, id, state: "cancelled" });
  });
});

describe("connect", () => {
  it("writes an entry with which the real Claude Code connects, over HTTP and as a process", async () => {
    const home = join(directory, "home");
    const file = join(home, "claude/.claude.json");
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, '{ "numStartups": 7 }');
    const options = { ...local, env: { ...local.env, CLAUDE_CONFIG_DIR: dirname(file) } };
    const connect = (...words: string[]) => runHere(["connect", "claude-code", ...words], options);
    expect(await connect()).toMatchObject({ code: 0, stdout: `Claude Code: ${file}\n` });
    expect(await connect("--name", "process", "--transport", "stdio")).toMatchObject({ code: 0 });
    const listed = await runClaudeCode(home, ["mcp", "list"]);
    expect(listed).toMatch(/^sandbox: http\S+ \(HTTP\) - .*Connected$/m);
    expect(listed).toMatch(/^process: .* - .*Connected$/m);
  });

  it("writes an entry with which a client starts the server as a process", async () => {
    const { entry } = await json(["connect", "claude-desktop", "--print", "--state-dir", "none"]);
    const args = [join(repository, "cli/main.ts"), "stdio", "--state-dir", join(directory, "none")];
    expect(entry).toEqual({ command: process.execPath, args });
  });

  it("asks before it replaces an entry, and keeps a copy of the file", async () => {
    const connect = (...words: string[]) => run(["connect", "cursor", "--project", ".", ...words]);
    const file = join(directory, ".cursor/mcp.json");
    expect(await connect("--print")).toMatchObject({ code: 0, stdout: expect.stringContaining(TOKEN) });
    expect(existsSync(file)).toBe(false);
    expect(await connect()).toMatchObject({ code: 0 });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(await connect()).toMatchObject({ stdout: `Cursor is connected already: ${file}\n` });
    const before = readFileSync(file, "utf8");
    const refused = await connect("--sandbox", "mine");
    expect([refused.code, refused.stderr]).toEqual([
      64,
      expect.stringContaining("Replace it? Confirm with --yes."),
    ]);
    expect(readFileSync(file, "utf8")).toBe(before);
    const answer = await json(["connect", "cursor", "--project", ".", "--sandbox", "mine", "--yes"]);
    expect(answer).toMatchObject({ success: true, written: true, file });
    expect(readFileSync(String(answer.copy), "utf8")).toBe(before);
    expect(readFileSync(file, "utf8")).toContain("sandbox=mine");
    writeFileSync(file, "{ broken");
    expect(await connect()).toMatchObject({ code: 1, stderr: expect.stringContaining("was not changed") });
  });

  it.each([
    [["connect", "notepad"], 64, "claude-code, claude-desktop, cursor"],
    [["connect", "windsurf", "--project", "."], 64, "no configuration for a project"],
    [["connect", "claude-desktop", "--transport", "http"], 64, "--transport stdio"],
    [["connect", "cursor", "--print", "--state-dir", "none"], 69, "No local server is running"],
  ])("refuses the command line %j", async (words, code, message) => {
    expect(await run(words)).toMatchObject({ code, stdout: "", stderr: expect.stringContaining(message) });
  });
});

describe("verify", () => {
  it("uses every listed tool, and reports its time", async () => {
    const answer = await json(["verify"]);
    const checks = answer.checks as { name: string; verdict: string; found: string }[];
    expect(checks.filter(({ verdict }) => verdict !== "ok")).toEqual([
      expect.objectContaining({
        name: "execute_task",
        verdict: "skipped",
        found: expect.stringContaining("--task"),
      }),
    ]);
    const names = checks.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(["health", "a wrong token is refused", "latency"]));
    expect(checks.find(({ name }) => name === "expose_port")?.found).toMatch(/responds from here$/);
    const { stdout } = await run(["sandboxes"]);
    expect(stdout).not.toContain("verify-");
    for (const tool of (
      await new MCPClient(server.url, TOKEN).result<{ tools: { name: string }[] }>({ method: "tools/list" })
    ).tools)
      expect(names).toContain(tool.name);
  });

  it("succeeds without the tools that an address or a token excludes, and names them", async () => {
    type Checks = { name: string; verdict: string; found: string }[];
    const part = await json(["verify", `${server.url}?tools=get_result,cancel_run,expose_port`, TOKEN]);
    const checks = part.checks as Checks;
    expect(checks.filter(({ verdict }) => !["ok", "skipped"].includes(verdict))).toEqual([]);
    const tools = checks.filter(({ name, verdict }) => verdict === "ok" && /^[a-z]+_[a-z]+$/.test(name));
    expect(tools.map(({ name }) => name)).toEqual(["get_result", "cancel_run", "expose_port"]);
    expect(checks).toContainEqual({
      name: "run_code",
      verdict: "skipped",
      found: "not offered: the ?tools= of the address leaves this tool out",
    });
    expect((await run(["sandboxes"])).stdout).not.toContain("verify-");

    const { code, stdout } = await run(["verify", "--url", server.url, "--token", READER]);
    expect(stdout).not.toMatch(/^failed/m);
    expect(stdout).toMatch(/^skipped\trun_command\t\tnot allowed: .*the token lacks sandbox:exec/m);
    expect(stdout).toMatch(/^skipped\tread_file\t\tnot tried: this check needs write_file/m);
    expect(stdout).toMatch(/^ok\tlist_sandboxes\t/m);
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(/All is well\. Not tried: run_command, [^\n]+\n$/),
    ]);
  });

  it("fails with a table if the token is wrong or no server responds", async () => {
    const refused = await run(["verify", server.url, "a-token-of-nobody"]);
    expect(refused).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/^failed\tthe token is accepted\t/m),
    });
    const nobody = await run(["verify", "http://127.0.0.1:1", "any-token"]);
    expect(nobody).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(
        /^failed\thealth\t\d+\tNo server responds at http:\/\/127\.0\.0\.1:1\/mcp \([^]*Failed: health\n$/,
      ),
    });
  });
});

describe("scripts", () => {
  const script = (name: string, words: string[]) =>
    runCLI(words, { program: join(repository, "scripts", name), cwd: directory });

  it("execute-task.sh accepts the address and the token of a server before the task, whose result is listed and kept", async () => {
    const { code, stdout } = await script("execute-task.sh", [server.url, TOKEN, "[[write]] Write it."]);
    expect(stdout).toMatch(/^\{"success":true,.*\}\n$/);
    const printed = JSON.parse(stdout);
    expect([code, printed]).toEqual([
      0,
      expect.objectContaining({
        success: true,
        taskId: printed.id,
        stdout: "It is written.",
        execution_time_ms: expect.any(Number),
      }),
    ]);
    const ended = await json(["result", printed.id]);
    expect(ended).toMatchObject({ success: true, state: "succeeded", answer: "It is written." });
    expect(await run(["runs", "--kind", "task", "--limit", "1"])).toMatchObject({
      stdout: expect.stringMatching(/^\S+t\ttask\tsucceeded\t\S+Z\t[^\t]+\t\[\[write\]\] Write it\.\n$/),
    });
  });

  it.each([
    ["execute-task.sh", ["too", "many"]],
    ["execute-task.sh", []],
    ["validate-config.sh", ["too", "many"]],
  ])("%s repeats no token in an error", async (name, more) => {
    const { stdout, stderr, code } = await script(name, ["http://127.0.0.1:1", TOKEN, ...more]);
    expect([code, stdout + stderr]).toEqual([64, expect.not.stringContaining(TOKEN)]);
    expect(JSON.parse(stdout)).toMatchObject({ success: false, error: { kind: "usage" } });
  });

  it("test-deployment.sh prints one JSON document that begins with the field success", async () => {
    const { stdout, code } = await script("test-deployment.sh", ["http://127.0.0.1:1", "any-token"]);
    expect([code, stdout]).toEqual([1, expect.stringMatching(/^\{"success":false,.*\}\n$/)]);
  });
});
