/** Real clients of every kind, against the server that `npm start` started. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import {
  Client as NewClient,
  StreamableHTTPClientTransport as NewTransport,
} from "@modelcontextprotocol/client";
import { runFile } from "../../local/engine/host-programs.ts";
import { Client, StreamableHTTPClientTransport } from "../clients/sdk1.ts";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { runClaudeCode } from "../setup/claude-code.ts";
import type { Block } from "../setup/mcp-client.ts";
import { type Reply, startMessagesAPI, toolResults } from "../setup/messages-api.ts";
import { startOpenAIAPI } from "../setup/openai-api.ts";
import { repository, TOKEN } from "../setup/server.ts";
import { callTool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const TOOLS = readdirSync(join(repository, "tests/definitions")).map((file) => file.replace(".json", ""));
/** The clients share a sandbox, because kernels and matplotlib take seconds of processor time to load. */
const sandbox = "clients";
const AUTHORIZATION = { authorization: `Bearer ${TOKEN}` };

const server = inject("server");
const home = temporaryDirectory();

/** The methods of both SDKs' clients that these tests use. */
interface AnyClient {
  listTools(): Promise<{ tools: { name: string }[] }>;
  callTool(call: { name: string; arguments: Record<string, unknown> }): Promise<unknown>;
  close(): Promise<void>;
}

async function call(client: AnyClient, name: string, args: Record<string, unknown>): Promise<Block[]> {
  const result = (await client.callTool({ name, arguments: args })) as {
    content: Block[];
    isError?: boolean;
  };
  if (result.isError) throw new Error(`${name} failed: ${JSON.stringify(result.content)}`);
  return result.content;
}

function isPNG(bytes: Buffer): boolean {
  return bytes.subarray(1, 4).toString() === "PNG";
}

function textOf(content: Block[]): string {
  return content.map(({ text }) => text ?? "").join("\n");
}

const CONNECT: [name: string, connect: () => Promise<AnyClient>][] = [
  [
    "the SDK 1.x",
    async () => {
      const client = new Client({ name: "e2e", version: "1" });
      await client.connect(
        new StreamableHTTPClientTransport(new URL(server.url), { requestInit: { headers: AUTHORIZATION } }),
      );
      return client;
    },
  ],
  ["the SDK 2.x in the 2025 era", () => connectNew("legacy")],
  ["the SDK 2.x in the 2026-07-28 era", () => connectNew({ pin: "2026-07-28" })],
];

async function connectNew(mode: "legacy" | { pin: string }): Promise<AnyClient> {
  const client = new NewClient({ name: "e2e", version: "1" }, { versionNegotiation: { mode } });
  await client.connect(new NewTransport(new URL(server.url), { requestInit: { headers: AUTHORIZATION } }));
  return client;
}

describe.concurrent.each(CONNECT)("%s", (name, connect) => {
  let client: AnyClient;
  const ownName = `of_${CONNECT.findIndex(([other]) => other === name)}`;

  beforeAll(async () => {
    client = await connect();
  });

  afterAll(async () => {
    await client.close();
  });

  it("lists the tools, runs code with state, receives a plot, runs commands and exchanges files", async () => {
    const { tools } = await client.listTools();
    expect(tools.map(({ name: listed }) => listed).sort()).toEqual([...TOOLS].sort());
    expect(textOf(await call(client, "run_code", { code: "sum(range(10))", sandbox }))).toContain("45");
    await call(client, "run_code", { code: `${ownName} = 'between' + ' calls'`, sandbox });
    expect(textOf(await call(client, "run_code", { code: ownName, sandbox }))).toContain("between calls");
    const script = { code: `const ${ownName}: number = 6; ${ownName} * 7`, language: "typescript", sandbox };
    expect(textOf(await call(client, "run_code", script))).toContain("42");

    const code = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()";
    const image = (await call(client, "run_code", { code, sandbox })).find(({ type }) => type === "image");
    expect(image?.mimeType).toBe("image/png");
    expect(isPNG(Buffer.from(image?.data ?? "", "base64"))).toBe(true);

    await call(client, "write_file", { path: `${ownName}/a.txt`, content: "grüße\n", sandbox });
    const command = `cd ${ownName}; tr a-z A-Z < a.txt > b.txt; cat b.txt`;
    const ran = await call(client, "run_command", { command, session: ownName, sandbox });
    expect(textOf(ran)).toContain("GR");
    expect(textOf(await call(client, "read_file", { path: `${ownName}/b.txt`, sandbox }))).toContain("GRüßE");
  });
});

it("a client follows what a command prints while it runs", async () => {
  const client = new NewClient({ name: "e2e", version: "1" });
  await client.connect(new NewTransport(new URL(server.url), { requestInit: { headers: AUTHORIZATION } }));
  const command = "for n in 1 2 3; do echo line $n; until [ -e /tmp/$n ]; do sleep 0.05; done; done";
  const started = await call(client, "run_command", { command, sandbox, wait_seconds: 0 });
  const id = /get_result, id ([a-z0-9.-]+[a-z0-9])/.exec(textOf(started))?.[1];
  const thirdLine = Promise.withResolvers<void>();
  const waiting = client.callTool(
    { name: "get_result", arguments: { id } },
    { onprogress: ({ message }) => message === "line 3" && thirdLine.resolve() },
  );
  let cursor = 0;
  for (const n of [1, 2, 3]) {
    // The command waits until the test has received the first output.
    let page = "";
    while (!page.includes(`line ${n}`)) {
      page = textOf(await call(client, "get_result", { id, cursor, wait_seconds: 1 }));
      expect(page).toContain("state: running");
      cursor = Number(/cursor (\d+)/.exec(page)?.[1]);
    }
    if (n === 3) await thirdLine.promise;
    await call(client, "run_command", { command: `touch /tmp/${n}`, sandbox, session: "other" });
  }
  expect(JSON.stringify(await waiting)).toContain("exit_code: 0");
  await client.close();
});

const inspect = async (connection: readonly string[], ...args: string[]) => {
  const program = join(repository, "tests/clients/node_modules/.bin/mcp-inspector");
  const env = { ...process.env, HOME: home };
  const { stdout } = await runFile(program, ["--cli", ...connection, ...args], { env, cwd: home });
  return JSON.parse(stdout) as { tools?: { name: string }[]; content?: Block[] };
};

const httpArguments = () => [server.url, "--transport", "http", "--header", `Authorization: Bearer ${TOKEN}`];

describe("the Inspector's command line", () => {
  it("lists the tools of a bridge process", async () => {
    const bridge = [process.execPath, join(repository, "cli/main.ts"), "stdio"];
    const address = ["-e", `SANDBOX_MCP_URL=${server.url}`, "-e", `SANDBOX_MCP_TOKEN=${TOKEN}`];
    const { tools } = await inspect([...bridge, ...address], "--method", "tools/list");
    expect(tools?.map(({ name }) => name).sort()).toEqual([...TOOLS].sort());
  });

  it("follows a task of MCP's Tasks extension until its result", async () => {
    const era = ["--protocol-era", "modern", "--method", "tools/call", "--tool-name", "run_command"];
    const { content } = await inspect(
      httpArguments(),
      ...era,
      "--tool-arg",
      "command=sleep 1; echo ended",
      `sandbox=${sandbox}`,
    );
    expect(textOf(content ?? [])).toContain("ended");
  });
});

describe("Claude Code", () => {
  const claude = (args: string[], modelURL?: string) => runClaudeCode(home, args, modelURL);

  it("connects with the line that npm start prints, calls the tools, and its model sees their answers", async () => {
    const line = /^ {2}claude (mcp add .*)$/m.exec(server.stdout)?.[1] ?? "";
    const { stdout: words } = await runFile("sh", ["-c", `printf '%s\\0' ${line}`], {
      env: { ...process.env, SERVER_AUTH_TOKEN: TOKEN },
    });
    await claude(words.split("\0").slice(0, -1));

    const steps: [tool: string, input: Record<string, unknown>][] = [
      ["run_code", { code: "sum(range(10))", sandbox }],
      ["run_code", { code: "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()", sandbox }],
      ["run_command", { command: "echo from the shell", sandbox }],
      // The result has more than 50,000 characters. Claude Code shows it completely, because the tool declares a
      // larger maximum.
      ["run_command", { command: "seq 1 12000 | tee /dev/stderr", sandbox }],
    ];
    const receivedResults: string[] = [];
    const api = await startMessagesAPI((request): Reply => {
      const results = toolResults(request);
      if (results.length > 0) receivedResults.push(JSON.stringify(results));
      const next = steps[receivedResults.length];
      if (next === undefined) return { blocks: [{ type: "text", text: "all done" }] };
      return { blocks: [{ type: "tool_use", name: `mcp__sandbox__${next[0]}`, input: next[1] }] };
    });
    const flags = ["--output-format", "json", "--allowedTools", "mcp__sandbox"];
    const output = await claude(["-p", "use the sandbox", ...flags], api.url);
    await api.close();

    expect(JSON.parse(output)).toMatchObject({ result: "all done", is_error: false });
    expect(receivedResults).toHaveLength(steps.length);
    expect(receivedResults[0]).toContain("45");
    expect(receivedResults[1]).toMatch(/"type":"image".*"media_type":"image\/png"/);
    expect(receivedResults[2]).toContain("from the shell");
    expect(receivedResults[3]?.match(/bytes omitted/g)).toHaveLength(2);
    const offered = api.requests.flatMap(({ body }) => body.tools ?? []).map(({ name }) => name);
    for (const name of TOOLS) expect(offered).toContain(`mcp__sandbox__${name}`);
  });

  it("connects by the plugin, with the address and the token as options", async () => {
    // Claude Code ignores a plugin's server if its configuration already has a server with that URL.
    const other = temporaryDirectory();
    const install = ["plugin", "install", "sandbox", "--marketplace", repository];
    await runClaudeCode(other, [...install, "--config", `url=${server.url}`, "--config", `token=${TOKEN}`]);
    expect(await runClaudeCode(other, ["mcp", "list"])).toMatch(/plugin:sandbox:sandbox: .*Connected/);
    const details = await runClaudeCode(other, ["plugin", "details", "sandbox"]);
    expect(details).toMatch(/[Ss]kills[^]*sandbox/);
  });
});

const model = await startOpenAIAPI();

describe("the examples", () => {
  const programs: ChildProcess[] = [];
  const place = temporaryDirectory();

  afterAll(() => programs.forEach((program) => program.kill()));

  function start(file: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}) {
    const child = spawn(process.execPath, [join(repository, "examples", file), ...args], {
      cwd: place,
      env: {
        ...process.env,
        SANDBOX_MCP_URL: server.url,
        SANDBOX_MCP_TOKEN: TOKEN,
        OPENAI_BASE_URL: model,
        OPENAI_API_KEY: "any",
        ...env,
      },
    });
    programs.push(child);
    const example = { child, stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => (example.stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (example.stderr += text));
    return example;
  }

  async function runExample(file: string, args: readonly string[] = [], stdin = "") {
    const example = start(file, args);
    example.child.stdin.end(stdin);
    const [status] = (await once(example.child, "close")) as [number | null];
    return { status, stdout: example.stdout, stderr: example.stderr };
  }

  const sandboxes = () => callTool(server.url, "list_sandboxes", {});

  it("sdk.ts prints a sum and saves a plot", async () => {
    const { status, stdout, stderr } = await runExample("sdk.ts");
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toContain("285");
    const file = /The plot is in (.*)\.$/m.exec(stdout)?.[1] ?? "";
    expect(isPNG(readFileSync(file))).toBe(true);
    rmSync(dirname(file), { recursive: true });
  });

  it("plot.ts downloads a plot, and leaves no sandbox", async () => {
    const { status, stdout, stderr } = await runExample("plot.ts");
    expect({ status, stdout, stderr }).toEqual({
      status: 0,
      stdout: "The sum is 285. The plot is in plot.png.\n",
      stderr: "",
    });
    expect(isPNG(readFileSync(join(place, "plot.png")))).toBe(true);
    rmSync(join(place, "plot.png"));
    expect(await sandboxes()).not.toContain("plot-example");
  });

  it.each(["langchain.ts", "openai-agents.ts", "ai-sdk.ts"])("%s lets its model run code", async (file) => {
    const { status, stdout, stderr } = await runExample(file, ["6 * 7"]);
    expect({ status, stdout }, stderr).toEqual({
      status: 0,
      stdout: expect.stringMatching(/It says: .*42/s),
    });
  });

  it("chat-backend.ts keeps a conversation's variables, and separates conversations", async () => {
    const example = start("chat-backend.ts", [], { PORT: "0" });
    const port = await until(() => /port (\d+)/.exec(example.stdout)?.[1]);
    const chat = async (conversation: string, message: string) => {
      const body = JSON.stringify({ conversation, message });
      const response = await fetch(`http://127.0.0.1:${port}/chat`, { method: "POST", body });
      return { status: response.status, text: await response.text() };
    };
    await chat("a1", "secret = 'of a1'");
    expect((await chat("a1", "secret")).text).toContain("of a1");
    expect((await chat("b2", "secret")).text).toContain("NameError");
    expect((await chat("../b2", "secret")).status).toBe(400);
  });

  it("one-shot.ts runs a program without network, and leaves no sandbox", async () => {
    const program = "import urllib.request\nprint('begun')\nurllib.request.urlopen('http://example.com')";
    const { status, stdout } = await runExample("one-shot.ts", [], program);
    expect({ status, stdout }).toEqual({ status: 1, stdout: expect.stringMatching(/begun[^]*Error/) });
    expect(await sandboxes()).not.toContain("once-");
  });

  it("nightly.ts adds to the results of the night before", async () => {
    await runExample("nightly.ts", ["1", "2"]);
    const { status, stdout, stderr } = await runExample("nightly.ts", ["6"]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/ 3 +3\.0 +6/);
  });

  /** Makes the repository /tmp/origin in a sandbox, because there is no internet to clone from. */
  async function makeOrigin(of: string, files: Record<string, string>) {
    for (const [name, content] of Object.entries(files))
      await callTool(server.url, "write_file", { sandbox: of, path: `/tmp/origin/${name}`, content });
    const command = "cd /tmp/origin && git init -q -b work && git add -A && git commit -qm one";
    const answer = await callTool(server.url, "run_command", { sandbox: of, session: "origin", command });
    expect(answer).toContain("exit_code: 0");
  }

  it("clone-build-test.ts downloads the artifacts", async () => {
    const build = "echo building; mkdir dist; rev < word > dist/word";
    await makeOrigin("ci-1", { word: "stressed", "build.sh": build });
    const { status, stdout } = await runExample("clone-build-test.ts", ["1", "/tmp/origin", "sh build.sh"]);
    expect({ status, stdout }).toEqual({ status: 0, stdout: "building\n" });
    const archive = join(place, "artifacts.tar.gz");
    expect((await runFile("tar", ["-xzOf", archive, "--wildcards", "*word"])).stdout).toContain("desserts");
    rmSync(archive);
    expect(await sandboxes()).not.toContain("ci-1");
  });

  it("clone-build-test.ts exits with the status of the command", async () => {
    await makeOrigin("ci-2", { word: "a" });
    const command = "cat missing || exit 3";
    const ended = await runExample("clone-build-test.ts", ["2", "/tmp/origin", command]);
    expect(ended).toMatchObject({ status: 3, stderr: expect.stringContaining("missing") });
  });

  it("clone-build-test.ts leaves no sandbox when its job is stopped", async () => {
    await makeOrigin("ci-3", { word: "a" });
    const example = start("clone-build-test.ts", ["3", "/tmp/origin", "echo begun; sleep 1000"]);
    await until(() => example.stdout.includes("begun"));
    example.child.kill("SIGTERM");
    const [status] = (await once(example.child, "close")) as [number | null];
    expect(status).toBe(1);
    expect(await sandboxes()).not.toContain("ci-3");
  });

  it("user-workspace.ts keeps successful changes, undoes failed ones, and separates users", async () => {
    const runAs = (user: string, command: string) => runExample("user-workspace.ts", [user, command]);
    expect(await runAs("alice@example.com", "cat notes/todo.txt; echo 'buy milk' >> notes/todo.txt")).toEqual(
      {
        status: 0,
        stdout: "read the manual\n",
        stderr: "",
      },
    );
    expect((await runAs("alice@example.com", "rm -r notes; exit 4")).status).toBe(1);
    expect((await runAs("alice@example.com", "cat notes/todo.txt")).stdout).toBe(
      "read the manual\nbuy milk\n",
    );
    expect((await runAs("bob@example.com", "cat notes/todo.txt")).stdout).toBe("read the manual\n");
    // Only the checkpoint of the template remains.
    expect((await sandboxes()).match(/^checkpoint \S+ of (template|user-\w+)/gm)).toHaveLength(1);
  });

  it("sessions.ts streams the output of a server and its test", async () => {
    const { status, stdout, stderr } = await runExample("sessions.ts");
    expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^web: .*"GET \/ HTTP\/1.1" 200/m);
    expect(stdout).toMatch(/^test: It works\.$/m);
  });

  it("git-patch.ts prints a commit that applies", async () => {
    const change = ["README.md", "it's teh", "it's the"];
    const origin = { "README.md": "it's teh end\n" };
    await makeOrigin("git-example", origin);
    const { status, stdout, stderr } = await runExample("git-patch.ts", ["/tmp/origin", ...change]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    await makeOrigin(sandbox, origin);
    const command = "cd /tmp/origin && git am -q && cat README.md && git log -1 --format=%s";
    const answer = await callTool(server.url, "run_command", {
      sandbox,
      command,
      stdin: stdout,
    });
    expect(answer).toContain("it's the end\nReplace it's teh in README.md");
  });

  it("pull-request.ts hands a failing test to the agent, and prints its fix as a patch", async () => {
    await makeOrigin("pr-7", {
      "sum.py": "def total(a, b):\n    return a - b\n",
      "test.py": 'import sum\nassert sum.total(1, 2) == 3, "[[mend]]"\n',
    });
    const { status, stdout, stderr } = await runExample("pull-request.ts", [
      "7",
      "/tmp/origin",
      "work",
      "python3 test.py",
    ]);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: "Mended the sum.\nWith the patch the test passes.\n",
    });
    expect(stdout).toContain("-    return a - b\n+    return a + b\n");
  });

  it("pull-request.ts without arguments prints the arguments that it takes", async () => {
    const { status, stderr } = await runExample("pull-request.ts", []);
    expect([status, stderr]).toEqual([64, expect.stringMatching(/^Usage: node pull-request\.ts [^\n]+\n$/)]);
  });

  it("leave no files in the directory in which they start", () => {
    expect(readdirSync(place)).toEqual([]);
  });
});
