/** `sandbox-mcp connect` writes its entry into clients' files and changes nothing else. */
import { execFileSync, spawn } from "node:child_process";
import {
  existsSync,
  lstatSync,
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
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { parse } from "jsonc-parser";
import { parse as parseTOML } from "smol-toml";
import { parse as parseYAML } from "yaml";
import { entryIn, setEntry } from "../../cli/client-file.ts";
import { clientCommand, programCommand } from "../../cli/program-files.ts";
import { type ClientKind, CLIENTS, type Endpoint } from "../../cli/clients.ts";
import { runHere, startCLI } from "../setup/cli.ts";
import { repository } from "../setup/server.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const client = (name: string) => CLIENTS.find((each) => each.name === name) as ClientKind;

const http: Endpoint = { kind: "http", url: "https://host.example/mcp?sandbox=a", token: "the-token" };
const Authorization = "Bearer the-token";
const bridge: Endpoint = {
  kind: "process",
  command: "/usr/bin/node",
  args: ["/a b/main.ts", "stdio"],
  env: {},
};

/** Files as these clients write them, with comments and other servers. */
const FILES: Record<string, string> = {
  "claude-code":
    '{\n  "numStartups": 3,\n  "mcpServers": {\n    "other": { "type": "stdio", "command": "x" }\n  },\n  "projects": {}\n}',
  "claude-desktop": '{\n  "globalShortcut": "",\n  "mcpServers": {}\n}\n',
  cursor: '{"mcpServers":{"other":{"url":"https://other.example"}}}',
  vscode:
    '{\n\t// Asked for once.\n\t"inputs": [{ "id": "key", "type": "promptString" }],\n\t"servers": {\n\t\t"other": { "type": "stdio", "command": "x" },\n\t},\n}\n',
  windsurf: '{\r\n  "mcpServers": {\r\n  }\r\n}\r\n',
  zed: '// Zed settings\n{\n  "theme": { "mode": "dark" }, // at night\n  "context_servers": {\n    "other": { "source": "custom", "command": "x", "args": [] }\n  }\n}\n',
  codex:
    '# mine\nmodel = "gpt"\n\n[mcp_servers.other]\ncommand = "x" # kept\n\n[mcp_servers.other.env]\nA = "1"\n\n[projects."/home/me"]\ntrust_level = "trusted"\n',
  "gemini-cli": '{ "security": { "auth": {} } }',
  opencode:
    '{\n  "$schema": "https://opencode.ai/config.json",\n  "mcp": { "other": { "type": "remote", "url": "https://o.example", "enabled": true } }\n}',
  cline:
    '{\n  "mcpServers": {\n    "other": { "command": "x", "disabled": false, "autoApprove": [] }\n  }\n}\n',
  "copilot-cli": '{ "mcpServers": { "other": { "type": "local", "command": "x", "tools": ["*"] } } }',
  continue: '{ "mcpServers": { "other": { "command": "x" } } }',
  "qwen-code": '{ "$version": 3, "mcpServers": { "other": { "httpUrl": "https://o.example" } } }',
  goose:
    "# mine\nGOOSE_MODEL: a-model\nextensions:\n  other: # kept\n    enabled: true\n    type: builtin\n    name: other\n",
};

/** The entry that each client's documentation requires. */
const WRITTEN: Record<string, (name: string) => unknown> = {
  "claude-code": (name) => ({
    mcpServers: { [name]: { type: "http", url: http.url, headers: { Authorization } } },
  }),
  "claude-desktop": (name) => ({
    mcpServers: { [name]: { command: "/usr/bin/node", args: ["/a b/main.ts", "stdio"] } },
  }),
  cursor: (name) => ({ mcpServers: { [name]: { url: http.url, headers: { Authorization } } } }),
  vscode: (name) => ({ servers: { [name]: { type: "http", url: http.url, headers: { Authorization } } } }),
  windsurf: (name) => ({ mcpServers: { [name]: { serverUrl: http.url, headers: { Authorization } } } }),
  zed: (name) => ({ context_servers: { [name]: { url: http.url, headers: { Authorization } } } }),
  codex: (name) => ({ mcp_servers: { [name]: { url: http.url, http_headers: { Authorization } } } }),
  "gemini-cli": (name) => ({ mcpServers: { [name]: { httpUrl: http.url, headers: { Authorization } } } }),
  opencode: (name) => ({ mcp: { [name]: { type: "remote", url: http.url, headers: { Authorization } } } }),
  cline: (name) => ({
    mcpServers: { [name]: { type: "streamableHttp", url: http.url, headers: { Authorization } } },
  }),
  "copilot-cli": (name) => ({
    mcpServers: { [name]: { type: "http", url: http.url, headers: { Authorization }, tools: ["*"] } },
  }),
  continue: (name) => ({
    mcpServers: { [name]: { type: "http", url: http.url, headers: { Authorization } } },
  }),
  "qwen-code": (name) => ({ mcpServers: { [name]: { httpUrl: http.url, headers: { Authorization } } } }),
  goose: (name) => ({
    extensions: {
      [name]: {
        enabled: true,
        name: "sandbox",
        timeout: 300,
        type: "streamable_http",
        uri: http.url,
        headers: { Authorization },
      },
    },
  }),
};

const READERS = { json: (text: string): unknown => parse(text), toml: parseTOML, yaml: parseYAML };
const read = ({ format }: ClientKind, text: string): unknown =>
  JSON.parse(JSON.stringify(READERS[format](text)));

describe.each(CLIENTS)("$title", (kind) => {
  const entry = kind.entry(kind.speaksHTTP ? http : bridge);
  const original = FILES[kind.name] ?? "";

  it("keeps a byte order mark", () => {
    const text = setEntry(kind, `\uFEFF${original}`, "sandbox", entry);
    expect([text.charCodeAt(0), text.slice(1)]).toEqual([0xfeff, setEntry(kind, original, "sandbox", entry)]);
    expect(entryIn(kind, text, "sandbox")).toEqual(JSON.parse(JSON.stringify(entry)));
  });

  it("creates a missing file", () => {
    expect(read(kind, setEntry(kind, "", "sandbox", entry))).toEqual(WRITTEN[kind.name]?.("sandbox"));
  });

  it("keeps the file's entries and comments", () => {
    const written = setEntry(kind, original, "sandbox", entry);
    expect(read(kind, written)).toMatchObject({ ...(WRITTEN[kind.name]?.("sandbox") as object) });
    expect(read(kind, written)).toMatchObject(read(kind, original) as object);
    for (const comment of original.match(/(?:\/\/|#) .*$/gm) ?? []) expect(written).toContain(comment);
    expect(setEntry(kind, written, "sandbox", entry)).toBe(written);
    const other = setEntry(kind, written, "sandbox", kind.entry(bridge));
    expect(entryIn(kind, other, "sandbox")).toEqual(kind.entry(bridge));
    expect(entryIn(kind, other, "other")).toEqual(entryIn(kind, original, "other"));
  });
});

it("an entry for OpenCode keeps a file's nested table of servers", () => {
  const kind = client("opencode");
  const original = '{ "mcp": { "servers": { "a": { "type": "local", "command": ["x"] } } } }';
  expect(read(kind, setEntry(kind, original, "sandbox", { type: "remote" }))).toEqual({
    mcp: { servers: { a: { type: "local", command: ["x"] }, sandbox: { type: "remote" } } },
  });
});

it.each([
  ["cursor", "{ not json", "not a JSON object"],
  ["cursor", "[]", "not a JSON object"],
  ["codex", "a = ", "not valid TOML"],
  ["goose", "a: [", "not valid YAML"],
  ["goose", "- a", "not a mapping"],
  ["codex", 'mcp_servers = { other = { command = "x" } }', "cannot change safely"],
])("a file of %s with the content %j is not changed", (name, text, message) => {
  expect(() => setEntry(client(name), text, "sandbox", { url: "u" })).toThrow(message);
});

describe("connect --project", () => {
  let project: string;
  let file: string;
  beforeEach(() => {
    project = temporaryDirectory();
    file = join(project, ".cursor/mcp.json");
  });

  const SERVER = { SANDBOX_MCP_URL: "https://host.example", SANDBOX_MCP_TOKEN: "the-token" };
  const connect = (...words: string[]) =>
    runHere(["connect", "cursor", "--project", project, ...words], { env: SERVER });

  it("shows the entry with --print even if the file cannot be read", async () => {
    mkdirSync(join(project, ".cursor"));
    writeFileSync(file, "{broken");
    expect(await connect()).toMatchObject({ code: 1, stderr: expect.stringContaining("--print shows") });
    const { code, stdout } = await connect("--print");
    expect([code, parse(stdout.slice(stdout.indexOf("\n")))]).toEqual([
      0,
      { mcpServers: { sandbox: { url: "https://host.example/mcp", headers: { Authorization } } } },
    ]);
    expect(readFileSync(file, "utf8")).toBe("{broken");
  });

  it.each(CLIENTS.filter(({ projectFile }) => projectFile !== undefined))(
    "keeps a copy of each file of $title that it changes, also within the same second",
    async ({ name, projectFile = "" }) => {
      const path = join(project, projectFile);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, FILES[name] ?? "");
      const args = ["connect", name, "--project", project, "--json"];
      const first = await runHere(args, { env: SERVER });
      const firstVersion = readFileSync(path, "utf8");
      const second = await runHere([...args, "--name", "other-name"], { env: SERVER });
      const copies = [first, second].map(({ stdout }) => readFileSync(JSON.parse(stdout).copy, "utf8"));
      expect(copies).toEqual([FILES[name], firstVersion]);
    },
  );

  it("follows a symbolic link, and copies the target before it writes", async () => {
    const target = join(project, "dotfiles.json");
    writeFileSync(target, "{}");
    mkdirSync(dirname(file));
    symlinkSync(target, file);
    const { code, stdout } = await connect("--json");
    expect([code, lstatSync(file).isSymbolicLink()]).toEqual([0, true]);
    expect(readFileSync(target, "utf8")).toContain("the-token");
    expect(JSON.parse(stdout).copy).toMatch(new RegExp(`^${target}\\.`));
  });

  it("changes no file outside the project through a link in the project, because code in a sandbox could have made that link", async () => {
    const home = mkdtempSync(join(tmpdir(), "sandbox-mcp home "));
    onTestFinished(() => rmSync(home, { recursive: true }));
    symlinkSync(home, join(project, ".vscode"));
    writeFileSync(join(home, "settings.json"), "{}");
    symlinkSync(join(home, "settings.json"), join(project, ".mcp.json"));
    for (const name of ["vscode", "claude-code"]) {
      const { code, stderr } = await runHere(["connect", name, "--project", project], { env: SERVER });
      expect([code, stderr]).toEqual([
        1,
        expect.stringContaining(`a symbolic link in the project leads to ${home}`),
      ]);
    }
    expect(readdirSync(home)).toEqual(["settings.json"]);
    expect(readFileSync(join(home, "settings.json"), "utf8")).toBe("{}");
  });

  it("neither changes nor reads a file outside the project while code exchanges the project's file with a link", async () => {
    const home = mkdtempSync(join(tmpdir(), "sandbox-mcp home "));
    onTestFinished(() => rmSync(home, { recursive: true }));
    const outside = join(home, "settings.json");
    const content = JSON.stringify({ secret: "of the user" });
    writeFileSync(outside, content);
    const exchange = `const { renameSync, symlinkSync, writeFileSync } = require("node:fs");
      const [file, outside] = process.argv.slice(1);
      for (;;) {
        writeFileSync(file + ".new", "{}");
        renameSync(file + ".new", file);
        symlinkSync(outside, file + ".new");
        renameSync(file + ".new", file);
      }`;
    const child = spawn(process.execPath, ["-e", exchange, join(project, ".mcp.json"), outside]);
    onTestFinished(() => void child.kill("SIGKILL"));
    await until(() => existsSync(join(project, ".mcp.json")));
    const copies = () => readdirSync(project).filter((name) => name.endsWith(".bak"));
    // On a busy machine, the first 200 attempts can all see the link.
    for (let count = 0; count < 200 || copies().length === 0; count++)
      await runHere(["connect", "claude-code", "--project", project], { env: SERVER });
    child.kill("SIGKILL");
    expect(readdirSync(home)).toEqual(["settings.json"]);
    expect(readFileSync(outside, "utf8")).toBe(content);
    expect(copies().length).toBeGreaterThan(0);
    for (const copy of copies()) expect(readFileSync(join(project, copy), "utf8")).not.toContain("secret");
  });

  it.each([
    ["a file that is read-only", () => writeFileSync(file, "{}", { mode: 0o444 }), "it is read-only"],
    [
      "a symbolic link to nothing",
      () => symlinkSync(join(project, "nothing"), file),
      "it is a symbolic link to a file that does not exist",
    ],
    ["a directory", () => mkdirSync(file), "EISDIR"],
  ])("never changes %s", async (_what, make, reason) => {
    mkdirSync(dirname(file));
    make();
    const before = readdirSync(dirname(file));
    const { code, stderr } = await connect();
    expect([code, stderr]).toEqual([1, expect.stringContaining(`${file} was not changed: ${reason}`)]);
    expect(readdirSync(dirname(file))).toEqual(before);
  });

  it("does not create a directory that the user names, because the name may be mistyped", async () => {
    const mistyped = join(project, "mistyped");
    const named = await runHere(["connect", "cursor", "--project", mistyped], { env: SERVER });
    expect([named.code, named.stderr]).toEqual([
      69,
      `Error: ${mistyped} is not a directory: create it, or correct --project.\n`,
    ]);
    for (const [name, variable] of [
      ["codex", "CODEX_HOME"],
      ["claude-code", "CLAUDE_CONFIG_DIR"],
      ["zed", "XDG_CONFIG_HOME"],
    ] as const) {
      const { code, stderr } = await runHere(["connect", name], { env: { ...SERVER, [variable]: mistyped } });
      expect([code, stderr]).toEqual([
        69,
        `Error: ${mistyped} is not a directory: create it, or correct ${variable}.\n`,
      ]);
    }
    expect(existsSync(mistyped)).toBe(false);
  });

  it.each(["\u0003", "\u0004", "n\r"])("treats %j as no at the prompt", async (key) => {
    mkdirSync(dirname(file));
    writeFileSync(file, '{"mcpServers":{"sandbox":{}}}');
    const program = `"${process.execPath}" "${join(repository, "cli/main.ts")}"`;
    const line = `${program} connect cursor --project "${project}"; echo "status $?"`;
    const running = startCLI(["-qec", line, "/dev/null"], { env: SERVER, program: "script" });
    await until(() => running.stdout().includes("Replace it? [y/N]"));
    running.stdin.write(key);
    await until(() => running.stdout().includes("status 130"));
    expect((await running.ended).stdout).toMatch(/Nothing was changed\.\s+status 130/);
    expect(readFileSync(file, "utf8")).toBe('{"mcpServers":{"sandbox":{}}}');
  });

  it.each([
    ["--sandbox", "A_"],
    ["--sandbox", "a".repeat(129)],
    ["--name", "a b"],
    ["--name", ""],
  ])("refuses %s %j", async (option, value) => {
    const { code, stderr } = await connect(option, value);
    expect([code, stderr]).toEqual([
      64,
      expect.stringMatching(new RegExp(`${option}.*must be 1 to \\d+ characters`)),
    ]);
    expect(existsSync(file)).toBe(false);
  });
});

it.each([
  ["claude-desktop", "linux", "/home/me/.config/Claude/claude_desktop_config.json"],
  ["claude-desktop", "darwin", "/home/me/Library/Application Support/Claude/claude_desktop_config.json"],
  ["vscode", "linux", "/home/me/.config/Code/User/mcp.json"],
  ["codex", "linux", "/home/me/.codex/config.toml"],
  ["claude-code", "linux", "/home/me/.claude.json"],
  ["cursor", "linux", "/home/me/.cursor/mcp.json"],
  ["windsurf", "linux", "/home/me/.codeium/windsurf/mcp_config.json"],
  ["zed", "linux", "/home/me/.config/zed/settings.json"],
  ["zed", "darwin", "/home/me/.config/zed/settings.json"],
  ["gemini-cli", "linux", "/home/me/.gemini/settings.json"],
  ["opencode", "linux", "/home/me/.config/opencode/opencode.json"],
] as const)("connect writes the entry for %s on %s into %s", (name, platform, file) => {
  const place = client(name).place({ platform, home: "/home/me", env: {} });
  expect(join(place.directory, place.path)).toBe(file);
});

it.each(['{ "mcpServers": [], "a": 1 }', '{ "mcpServers": null, "a": 1 }'])(
  "connect replaces an empty value of mcpServers with a table with the entry: %s",
  (text) => {
    const kind = client("cursor");
    expect(parse(setEntry(kind, text, "sandbox", kind.entry(http)))).toEqual({
      ...(WRITTEN.cursor?.("sandbox") as object),
      a: 1,
    });
    expect(entryIn(kind, text, "sandbox")).toBeUndefined();
  },
);

it.each(['{ "mcpServers": [1] }', '{ "mcpServers": "x" }', '{ "mcpServers": 0 }'])(
  "connect does not change a file whose mcpServers is not a table of servers, and says so: %s",
  (text) => {
    const kind = client("cursor");
    expect(() => setEntry(kind, text, "sandbox", kind.entry(http))).toThrow(
      'its "mcpServers" is not a table of servers',
    );
  },
);

it("connect replaces an entry in TOML and keeps the comments before the next table", () => {
  const text =
    '[mcp_servers.sandbox]\nurl = "u" # mine\n\n# Who may do what:\n[projects."/a"]\ntrust_level = "trusted"\n';
  const after = setEntry(client("codex"), text, "sandbox", { url: "v" });
  expect(after).toBe(
    '\n# Who may do what:\n[projects."/a"]\ntrust_level = "trusted"\n\n[mcp_servers.sandbox]\nurl = "v"\n',
  );
});

it("if npx started the program from its cache, the entry starts the program with npx, because npm may empty the cache", () => {
  const home = mkdtempSync(join(tmpdir(), "sandbox-mcp npx "));
  const cache = join(home, ".npm/_npx/9eac9498388ae25e");
  const file = join(cache, "node_modules/sandbox-mcp/dist/cli/bin.js");
  const from = (spec: string) => {
    mkdirSync(cache, { recursive: true });
    writeFileSync(join(cache, "package.json"), JSON.stringify({ dependencies: { "sandbox-mcp": spec } }));
    return programCommand(file, "1.2.3");
  };
  try {
    expect(from("^1.2.0")).toEqual(["npx", "-y", "sandbox-mcp@1.2.3"]);
    expect(from("file:../../../a b/sandbox-mcp-1.2.3.tgz")).toEqual([
      "npx",
      "-y",
      `file:${join(home, "a b/sandbox-mcp-1.2.3.tgz")}`,
    ]);
    expect(programCommand("/opt/sandbox-mcp/bin.js", "1.2.3")).toEqual([
      process.execPath,
      "/opt/sandbox-mcp/bin.js",
    ]);
  } finally {
    rmSync(home, { recursive: true });
  }
});

it("an entry with npx runs no program from the client's working directory, because a sandbox may write to that directory", () => {
  const home = mkdtempSync(join(tmpdir(), "sandbox-mcp npx "));
  onTestFinished(() => rmSync(home, { recursive: true }));
  const cache = join(home, ".npm/_npx/9eac9498388ae25e");
  const bin = join(home, "project/node_modules/.bin");
  for (const path of [cache, bin, join(home, "package")]) mkdirSync(path, { recursive: true });
  const description = { name: "sandbox-mcp", version: "1.2.3", bin: "bin.js" };
  writeFileSync(join(home, "package/package.json"), JSON.stringify(description));
  writeFileSync(
    join(home, "package/bin.js"),
    '#!/usr/bin/env node\nconsole.log("started", process.argv[2]);\n',
  );
  execFileSync("tar", ["czf", "sandbox-mcp.tgz", "package"], { cwd: home });
  const dependencies = { "sandbox-mcp": "file:../../../sandbox-mcp.tgz" };
  writeFileSync(join(cache, "package.json"), JSON.stringify({ dependencies }));
  for (const name of ["sh", "node", "npx", "sandbox-mcp"])
    writeFileSync(join(bin, name), "#!/bin/bash\necho planted\n", { mode: 0o755 });
  const [command, ...args] = clientCommand(join(cache, "node_modules/sandbox-mcp/dist/cli/bin.js"), "1.2.3");
  const options = {
    cwd: join(home, "project"),
    env: { ...process.env, HOME: home },
    encoding: "utf8",
  } as const;
  expect(execFileSync(command, [...args, "stdio"], options)).toBe("started stdio\n");
});
