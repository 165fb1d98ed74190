/** The package that `npm pack` makes, installed below node_modules, where Node does not run TypeScript. */
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Client } from "../clients/sdk1.ts";
import { StdioClientTransport } from "../clients/sdk1-stdio.ts";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { npm, repository, type Server, startServer, TOKEN } from "../setup/server.ts";
import { callTool } from "../setup/tool.ts";

const directory = mkdtempSync(join(tmpdir(), "sandbox-mcp package "));
const installed = join(directory, "node_modules/sandbox-mcp");

/** Installs the package like npm, with links to the repository's node_modules. */
function install(tarball: string): void {
  mkdirSync(join(directory, "node_modules/.bin"), { recursive: true });
  mkdirSync(installed);
  execFileSync("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"]);
  const { bin, dependencies } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  for (const name of Object.keys(dependencies)) {
    const place = join(directory, "node_modules", name);
    mkdirSync(dirname(place), { recursive: true });
    symlinkSync(join(repository, "node_modules", name), place);
  }
  const program = join(installed, bin["sandbox-mcp"]);
  chmodSync(program, 0o755);
  symlinkSync(program, join(directory, "node_modules/.bin/sandbox-mcp"));
  // The tests use the repository's npm, because the machine's own may be older.
  symlinkSync(process.execPath, join(directory, "node_modules/.bin/node"));
  writeFileSync(join(directory, "package.json"), '{ "scripts": { "start": "sandbox-mcp start" } }');
}

beforeAll(async () => {
  const packed = npm(["pack", "--pack-destination", directory]);
  if ((await packed.exited) !== 0) throw new Error(packed.stderr());
  const tarball = readdirSync(directory).find((name) => name.endsWith(".tgz")) ?? "";
  install(join(directory, tarball));
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

it("the package contains only the files that it runs, and no TypeScript but the types of the client library", () => {
  expect(readdirSync(installed).toSorted()).toEqual(["LICENSE", "README.md", "dist", "package.json"]);
  expect(readdirSync(join(installed, "dist")).toSorted()).toEqual(
    "cli client container local package.json scripts src worker wrangler.local.jsonc".split(" "),
  );
  const files = readdirSync(installed, { recursive: true, encoding: "utf8" });
  expect(files).toContain("dist/local/agents/claude-code/package-lock.json");
  expect(files).toContain("dist/local/runtime/kernels/python-kernel.py");
  expect(files.filter((file) => /node_modules|\.map$|\.test\.|\.tgz$|\.dev\.vars/.test(file))).toEqual([]);
  const sources = files.filter((file) => file.endsWith(".ts"));
  expect(sources.filter((file) => !/^dist\/client\/(adapters\/)?[\w-]+\.d\.ts$/.test(file))).toEqual([]);
});

it("the package reports in one sentence which Node it needs", () => {
  const older = "Object.defineProperty(process.versions, 'node', { value: '22.14.0' })";
  const program = join(installed, "dist/cli/bin.js");
  const { status, stderr } = spawnSync(
    process.execPath,
    ["--import", `data:text/javascript,${encodeURIComponent(older)}`, program, "--version"],
    { encoding: "utf8" },
  );
  expect({ status, stderr }).toEqual({
    status: 1,
    stderr: "sandbox-mcp needs Node 22 (22.15 or newer) or Node 24 or newer, and this is 22.14.0.\n",
  });
});

it.each([
  [["runs"], 69, "Start one with `sandbox-mcp start`,"],
  [["start", "--prot", "1"], 64, "sandbox-mcp start --help lists the options."],
  [["validate"], 1, `no ${join(directory, "wrangler.jsonc")}`],
  [["deploy", "--dry-run"], 69, `${directory} has no wrangler.jsonc and Dockerfile: deploy from a clone`],
])("the error of %j names commands and paths that its user has", (words, code, message) => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(installed, "dist/cli/bin.js"), ...words],
    {
      cwd: directory,
      encoding: "utf8",
      env: { PATH: process.env.PATH, HOME: directory, XDG_STATE_HOME: join(directory, "nothing") },
    },
  );
  expect([status, stdout + stderr]).toEqual([code, expect.stringContaining(message)]);
});

it("the package prints commands that work if npx fetched it", () => {
  const cache = join(directory, "_npx/0123456789abcdef");
  cpSync(installed, join(cache, "node_modules/sandbox-mcp"), { recursive: true });
  const { version } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  writeFileSync(join(cache, "package.json"), JSON.stringify({ dependencies: { "sandbox-mcp": version } }));
  const env = { PATH: process.env.PATH, HOME: directory, XDG_STATE_HOME: join(directory, "nothing") };
  const program = join(cache, "node_modules/sandbox-mcp/dist/cli/bin.js");
  const { stderr } = spawnSync(process.execPath, [program, "runs"], { encoding: "utf8", env });
  expect(stderr).toContain(`Start one with \`npx -y sandbox-mcp@${version} start\``);
});

describe("the package", () => {
  const agent = join(directory, "agent/package");
  const tarball = join(directory, "agent.tgz");
  const agentPackage = `@anthropic-ai/claude-code-linux-${process.arch}`;
  let server: Server;

  beforeAll(async () => {
    // The server uses only a program that needs no other files, so `claude` is a copy of echo.
    mkdirSync(agent, { recursive: true });
    copyFileSync("/bin/echo", join(agent, "claude"));
    writeFileSync(join(agent, "package.json"), JSON.stringify({ name: agentPackage, version: "1.0.0" }));
    execFileSync("tar", ["-czf", tarball, "-C", dirname(agent), "package"]);
    const env = {
      ANTHROPIC_API_KEY: "any",
      XDG_STATE_HOME: join(directory, "without agents"),
      npm_config_registry: "http://127.0.0.1:9",
    };
    server = await startServer({ directory, env, asUser: true });
    return () => server.stop();
  });

  it("serves commands, files and code", async () => {
    const call = (name: string, args: Record<string, unknown>) => callTool(server.url, name, args);
    expect(await call("run_command", { command: "echo from the package >a; cat a" })).toContain(
      "from the package",
    );
    expect(await call("read_file", { path: "a" })).toContain("from the package");
    for (const language of ["python", "javascript", "typescript"])
      expect(await call("run_code", { code: "6 * 7", language })).toContain("42");
    const program = join(directory, "node_modules/.bin/sandbox-mcp");
    const words = ["command", "cat a", "--url", server.url, "--token", TOKEN];
    expect(execFileSync(process.execPath, [program, ...words], { encoding: "utf8" })).toBe(
      "from the package\n",
    );
    const library = `import { connect } from "sandbox-mcp/client";
        const { url, token } = JSON.parse(process.argv[1]);
        console.log((await connect({ url, token }).sandbox().runCommand("cat a")).stdout);`;
    const options = JSON.stringify({ url: server.url, token: TOKEN });
    const nodeArgs = ["--input-type=module", "--eval", library, "--", options];
    expect(execFileSync(process.execPath, nodeArgs, { cwd: directory, encoding: "utf8" })).toBe(
      "from the package\n\n",
    );
    // The bundle for Claude Desktop contains its own copy of the program.
    const bundle = dirname(execFileSync("node", ["scripts/mcpb.ts"], { cwd: repository, encoding: "utf8" }));
    const manifest = JSON.parse(readFileSync(join(bundle, "bundle/manifest.json"), "utf8"));
    const settings: Record<string, string> = { url: server.url, token: TOKEN, sandbox: "default" };
    const { args, env } = manifest.server.mcp_config as { args: string[]; env: Record<string, string> };
    const client = new Client({ name: "desktop", version: "1" });
    const variables = Object.entries(env).map(([name, value]) => [
      name,
      settings[value.slice(14, -1)] ?? value,
    ]);
    await client.connect(
      new StdioClientTransport({
        command: process.execPath,
        args: args.map((word) => word.replace("${__dirname}", join(bundle, "bundle"))),
        env: Object.fromEntries(variables),
      }),
    );
    const { content } = await client.callTool({ name: "read_file", arguments: { path: "a" } });
    expect(JSON.stringify(content)).toContain("from the package");
    await client.close();
  });

  it("reports to a task why Claude Code could not be installed if npm reaches no registry, and installs it for a later task", async () => {
    expect(await callTool(server.url, "execute_task", { task: "say hello" })).toMatch(
      /Claude Code could not be installed: npm got none of its packages .*Check the network/,
    );
    const dependencies = { [agentPackage]: `file:${tarball}` };
    const packages = {
      "": { dependencies },
      [`node_modules/${agentPackage}`]: { version: "1.0.0", resolved: `file:${tarball}` },
    };
    const manifest = join(installed, "dist/local/agents/claude-code");
    writeFileSync(join(manifest, "package.json"), JSON.stringify({ dependencies }));
    writeFileSync(join(manifest, "package-lock.json"), JSON.stringify({ lockfileVersion: 3, packages }));
    for (let count = 0; count < 2; count++) {
      const task = await callTool(server.url, "execute_task", { task: "say hello" });
      expect(task).not.toContain("could not be installed");
      // The second task finds the installed program.
      rmSync(tarball, { force: true });
    }
    expect(server.stderr()).toMatch(/Installing Claude Code with npm/);
    expect(await callTool(server.url, "run_command", { command: "claude fetched" })).toContain("fetched");
  });

  it("uses the Claude Code of PATH, and then --agents fetches nothing", async () => {
    const agents = await startServer({
      directory,
      asUser: true,
      flags: ["--agents"],
      env: {
        ANTHROPIC_API_KEY: "any",
        XDG_STATE_HOME: join(directory, "with claude"),
        npm_config_registry: "http://127.0.0.1:9",
        PATH: `${agent}:${process.env.PATH}`,
      },
    });
    onTestFinished(() => agents.stop());
    expect(agents.stderr()).toContain(`Claude Code is ready: ${join(agent, "claude")}\n`);
    expect(await callTool(agents.url, "run_command", { command: "claude from PATH" })).toContain("from PATH");
    const task = await callTool(agents.url, "execute_task", { task: "say hello" });
    expect(task).not.toContain("could not be installed");
    expect(readdirSync(join(directory, "with claude/sandbox-mcp/agents"))).toEqual(["bin"]);
  });
});

it("the package keeps a generated token in its user's state directory", () => {
  const env = { PATH: process.env.PATH, HOME: directory, XDG_STATE_HOME: join(directory, "state") };
  const token = () =>
    execFileSync(process.execPath, [join(installed, "dist/cli/bin.js"), "token", "show"], {
      env,
      encoding: "utf8",
      stdio: "pipe",
    });
  const saved = `SERVER_AUTH_TOKEN=${token()}`;
  expect(readFileSync(join(directory, "state/sandbox-mcp/.dev.vars"), "utf8")).toBe(saved);
  expect(`SERVER_AUTH_TOKEN=${token()}`).toBe(saved);
});
