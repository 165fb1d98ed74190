/** The command line without a server of this project. */
import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import type { RequestListener } from "node:http";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { describe, expect, test, vi } from "vitest";
import { NEEDED_NODE } from "../../cli/node-version.ts";
import { oneLine } from "../../cli/print.ts";
import { leafCommands } from "../../cli/command-tree.ts";
import { rotateOwner } from "../../cli/rotation.ts";
import { http } from "../../cli/server-calls.ts";
import { VARIABLES_FILE } from "../../cli/server-address.ts";
import { writeVariables } from "../../cli/dev-vars.ts";
import { Keyboard } from "../../cli/keyboard.ts";
import { SCOPES } from "../../src/shared/principal.ts";
import { TerminalFilter } from "../../src/shared/terminal/filter.ts";
import { freePort } from "../../cli/lock.ts";
import { runCLI, runHere, startCLI } from "../setup/cli.ts";
import { until } from "../setup/until.ts";
import { serve } from "../setup/serve.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const directory = temporaryDirectory();

const withSandbox = leafCommands().filter(([, { options }]) =>
  options.some(({ long }) => long === "--sandbox"),
);

test.each(withSandbox)(
  "%s refuses an invalid sandbox name before it sends a request",
  async (name, command) => {
    const needed = command.registeredArguments.filter(({ required }) => required).map(() => "cursor");
    const env = { SANDBOX_MCP_URL: "http://127.0.0.1:9", SANDBOX_MCP_TOKEN: "token" };
    const { code, stderr } = await runHere([...name.split(" "), ...needed, "--sandbox", "A B"], { env });
    expect([code, stderr]).toEqual([
      64,
      expect.stringMatching(/--sandbox must be 1 to 128 characters .*, such as "A-B", not "A B"/),
    ]);
  },
);

test.each(["text", "JSON"])(
  "a command reports as %s that --url is not the endpoint of a server",
  async (form) => {
    const notFound: RequestListener = (_request, response) =>
      response.writeHead(404).end(JSON.stringify({ error: "Not found" }));
    const url = await serve(notFound, "/mcp");
    const args = ["runs", "--url", `${url}/nope`, "--token", "any", ...(form === "JSON" ? ["--json"] : [])];
    const { code, stdout, stderr } = await runHere(args);
    expect([code, stdout + stderr]).toEqual([
      69,
      expect.stringContaining("/mcp/nope is not the endpoint of a sandbox-mcp server (404)"),
    ]);
  },
);

test("`files get` reports a missing local directory before it calls a server", async () => {
  const args = ["files", "get", "x", "--url", "http://127.0.0.1:9", "--token", "any"];
  for (const to of [join(directory, "none/y"), `${directory}/none/`])
    expect(await runHere([...args, to])).toEqual({
      code: 69,
      stdout: "",
      stderr: expect.stringMatching(/^Error: \S+ cannot be written: \S+none is not a directory\.\n$/),
    });
});

test("a command without --sandbox uses the sandbox in the URL", async () => {
  const requestedPaths: string[] = [];
  const list: RequestListener = ({ url }, response) => {
    requestedPaths.push(url ?? "");
    response.end(JSON.stringify({ entries: [] }));
  };
  const url = await serve(list, "/mcp");
  const env = { SANDBOX_MCP_URL: `${url}?sandbox=project`, SANDBOX_MCP_TOKEN: "any" };
  await runHere(["files", "ls"], { env });
  await runHere(["files", "ls", "--url", `${url}?sandbox=other`], { env });
  await runHere(["files", "ls", "--sandbox", "named"], { env });
  expect(requestedPaths.map((path) => path.split("/")[2])).toEqual(["project", "other", "named"]);
  const args = ["runs", "--url", "http://127.0.0.1:9/mcp?sandbox=A+B", "--token", "any"];
  const { code, stderr } = await runHere(args);
  expect([code, stderr]).toEqual([
    64,
    expect.stringContaining("The sandbox of the address must be 1 to 128 characters ("),
  ]);
});

describe("stdio", () => {
  const initialize = {
    jsonrpc: "2.0",
    id: 1,
    method: "initialize",
    params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "x", version: "1" } },
  };

  test("exits with 69 if no server responds, and reports that to its client and in the log", async () => {
    const url = `http://127.0.0.1:${await freePort(0)}/mcp`;
    const args = ["stdio", "--url", url, "--token", "any"];
    const { code, stdout, stderr } = await runCLI(args, {}, `${JSON.stringify(initialize)}\n`);
    const message = `No server responds at ${url} (ECONNREFUSED). Check the address, and that the server runs.`;
    expect([code, JSON.parse(stdout), stderr]).toEqual([
      69,
      { jsonrpc: "2.0", id: 1, error: { code: -32000, message } },
      `${message}\n`,
    ]);
  });

  test("exits with 77 if the token is refused, logs that once, and names commands as `npm run cli --` if npm started it", async () => {
    const refuse: RequestListener = (_request, response) =>
      response.writeHead(401).end(JSON.stringify({ error: "Unauthorized" }));
    const url = await serve(refuse, "/mcp");
    const input = [initialize, { ...initialize, id: 2 }].map((each) => `${JSON.stringify(each)}\n`).join("");
    const env = { npm_lifecycle_event: "cli" };
    const { code, stdout, stderr } = await runCLI(["stdio", "--url", url, "--token", "any"], { env }, input);
    expect([code, stdout.trimEnd().split("\n")]).toEqual([
      77,
      [expect.stringContaining("-32000"), expect.stringContaining("-32000")],
    ]);
    expect(stderr.match(/does not accept the token of --token/g)).toHaveLength(1);
    expect(stderr).toContain("`npm run cli -- connect <client>`");
  });
});

test("`files get` leaves no partial file when it is stopped", async () => {
  const cwd = mkdtempSync(join(directory, "get-"));
  const begin: RequestListener = (_request, response) => {
    response.writeHead(200, { "content-disposition": "attachment" }).write("the first part");
  };
  const url = await serve(begin, "/mcp");
  const args = ["files", "get", "report.pdf", "--url", url, "--token", "any"];
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const running = startCLI(args, { cwd });
    await until(() => readdirSync(cwd).some((name) => name.endsWith(".part")));
    running.kill(signal);
    const { code, stderr } = await running.ended;
    expect([code, stderr]).toEqual([
      130,
      "Error: The download of report.pdf was stopped before its end. Nothing was saved.\n",
    ]);
    expect(readdirSync(cwd)).toEqual([]);
  }
});

test("files get does not follow symbolic links, which a sandbox that mounts this directory could have made", async () => {
  const cwd = mkdtempSync(join(directory, "linked-"));
  const other = mkdtempSync(join(directory, "other-"));
  symlinkSync(other, join(cwd, "authorized_keys"));
  symlinkSync(join(other, "made"), join(cwd, "report.pdf"));
  const send: RequestListener = (_request, response) =>
    response.writeHead(200, { "content-disposition": "attachment" }).end("content");
  const url = await serve(send, "/mcp");
  const get = (...args: string[]) =>
    runCLI(["files", "get", ...args, "--url", url, "--token", "any"], { cwd });
  for (const name of ["authorized_keys", "report.pdf"])
    expect((await get(name)).stderr).toContain(`${name} exists already`);
  expect((await get("report.pdf", "--force")).code).toBe(0);
  expect(readFileSync(join(cwd, "report.pdf"), "utf8")).toBe("content");
  expect(lstatSync(join(cwd, "report.pdf")).isFile()).toBe(true);
  expect(readdirSync(other)).toEqual([]);
});

test("`files ls` escapes names if its output is a pipe, in a form that a shell can decode", async () => {
  const names = ["a\nb", "two  spaces ", "\u001b[31mred", "tab\t", "back\\n", "\u009b2J\u202e", "ž.txt"];
  const entries = names.map((path) => ({ path, type: "file", size: 1, modified: "now" }));
  const url = await serve((_request, response) => response.end(JSON.stringify({ entries })), "/mcp");
  const args = ["files", "ls", "--url", url, "--token", "any"];
  const { stdout } = await runHere(args);
  // oxlint-disable-next-line no-control-regex
  expect(stdout).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f\p{Bidi_Control}]/u);
  const printed = stdout.trimEnd().split("\n");
  const read = printed.map((line) =>
    execFileSync("bash", ["-c", 'printf "%b" "$1"', "bash", line.split("\t")[3] ?? ""], {
      encoding: "utf8",
    }),
  );
  expect(read).toEqual(names);
  expect(JSON.parse((await runHere([...args, "--json"])).stdout).entries).toEqual(entries);
});

test.each([
  ["shell", "sandbox-mcp command --json"],
  ["stdio", "JSON already"],
])("`%s` refuses --json with an error in JSON", async (name, words) => {
  const { code, stdout, stderr } = await runHere([name, "--json"]);
  expect([code, JSON.parse(stdout), stderr]).toEqual([
    64,
    { success: false, error: { kind: "usage", message: expect.stringContaining(words), exit_status: 64 } },
    "",
  ]);
});

test("the report of `diagnose` contains no token, however it is passed, and no password of an address", async () => {
  const echo: RequestListener = ({ url, headers }, response) => {
    response.statusCode = url === "/health" ? 200 : 500;
    response.end(JSON.stringify({ error: `no ${headers.authorization}` }));
  };
  const url = await serve(echo, "/mcp");
  const args = ["diagnose", "--output", "-", "--json"];
  const { code, stdout } = await runHere([...args, `--url=${url}`, "--token=given-in-one-word"]);
  expect([code, JSON.parse(stdout).server.error]).toEqual([0, expect.stringContaining("Bearer (redacted)")]);
  const named = await runHere([...args, "--url", url.replace("//", "//me:my-password@"), "--token", "t"]);
  expect(JSON.parse(named.stdout).server.error).toContain("--url must not contain a user or a password");
  expect(named.stdout).not.toContain("my-password");
});

test("`runs` refuses a cursor that is not a run's id, before it calls a server", async () => {
  const env = { SANDBOX_MCP_URL: "http://127.0.0.1:9", SANDBOX_MCP_TOKEN: "token" };
  const { code, stderr } = await runHere(["runs", "--cursor", "foo"], { env });
  expect([code, stderr]).toEqual([
    64,
    expect.stringMatching(/'--cursor <id>' argument 'foo'.*the id of a run/),
  ]);
});

test("an unexpected response is reported in one line, and with the error's stack only on request", async () => {
  const url = await serve((_request, response) => response.end('{"entries":5}'), "/mcp");
  const args = ["files", "ls", "--url", url, "--token", "any"];
  const { code, stderr } = await runHere(args, { env: { SANDBOX_MCP_VERBOSE: undefined } });
  expect([code, stderr]).toEqual([70, expect.stringMatching(/^Error: [^\n]+SANDBOX_MCP_VERBOSE[^\n]+\n$/)]);
  const more = await runHere(args, { env: { SANDBOX_MCP_VERBOSE: "1" } });
  expect(more.stderr).toContain("cli/commands/files.ts:");
});

test.each([
  [["the-token"], {}, "the argument [token]"],
  [[], { SANDBOX_MCP_TOKEN: "the-token" }, "SANDBOX_MCP_TOKEN"],
])(
  "`verify` names where a refused token came from, and the variable with the right one: %j",
  async (words, env, source) => {
    const refuse: RequestListener = ({ url }, response) => {
      response.statusCode = url === "/health" ? 200 : 401;
      response.end(JSON.stringify(url === "/health" ? { status: "healthy" } : { error: "invalid_token" }));
    };
    const url = await serve(refuse, "/mcp");
    const { code, stdout } = await runHere(["verify", url, ...words, "--json"], { env });
    expect([code, JSON.parse(stdout).checks.at(-1)]).toMatchObject([
      1,
      {
        found: expect.stringContaining(`the token of ${source}: `),
        fix: expect.stringContaining("SERVER_AUTH_TOKEN"),
      },
    ]);
  },
);

test.each([
  [["--url", "http://127.0.0.1:9", "runs"], "Put --url after the command: sandbox-mcp runs --url ..."],
  [["--json", "code", "1"], "Put --json after the command: sandbox-mcp code --json ..."],
  [["--token=abc"], "Put --token after the command: sandbox-mcp <command> --token ..."],
])("the error for %j says where the option belongs", async (words, message) => {
  const { code, stdout, stderr } = await runHere(words);
  expect([code, stdout + stderr]).toEqual([64, expect.stringContaining(message)]);
});

test("`diagnose` shows the values of numeric and enumerated variables, and no others", async () => {
  const env = {
    MAX_SANDBOXES: "7",
    LOG_LEVEL: "Debug",
    SANDBOX_TRANSPORT: "rpc",
    MAX_CHECKPOINTS: "none",
    GITHUB_CLIENT_ID: "20261122",
    COMPONENTS: "full",
  };
  const { stdout } = await runHere(["diagnose", "--output", "-", "--json"], { env });
  expect(JSON.parse(stdout).variables).toMatchObject({
    ...env,
    MAX_CHECKPOINTS: "(set)",
    GITHUB_CLIENT_ID: "(set)",
    COMPONENTS: "(set)",
  });
});

test.each(["doctor", "diagnose"])("`%s` refuses an invalid port", async (name) => {
  const { code, stderr } = await runHere([name, "--port", "99999"]);
  expect([code, stderr]).toEqual([64, expect.stringContaining("a port number from 1 to 65535")]);
});

test("`doctor` does not report a killed server as running", async () => {
  const stateDir = mkdtempSync(join(directory, "killed-"));
  const { pid } = spawnSync("true");
  const port = await freePort(0);
  const server = { url: `http://127.0.0.1:${port}/mcp`, pid, process: `${pid} 0 boot` };
  writeFileSync(join(stateDir, "server.json"), JSON.stringify(server));
  const { stdout } = await runHere(["doctor", "--state-dir", stateDir]);
  expect(stdout).toContain(`port ${port}\tfree: the server that listened here was killed`);
});

test("doctor leaves no temporary files", async () => {
  const temporary = mkdtempSync(join(directory, "temporary-"));
  // wrangler finds no login, even if the person who runs the tests has one.
  const env = {
    TMPDIR: temporary,
    HOME: temporary,
    XDG_CONFIG_HOME: temporary,
    CLOUDFLARE_API_TOKEN: undefined,
  };
  const { stdout } = await runHere(["doctor", "--deploy", "--state-dir", join(directory, "none")], { env });
  expect(stdout).toContain("wrangler and its login");
  expect(readdirSync(temporary).filter((name) => name.startsWith("sandbox-mcp"))).toEqual([]);
});

test("`doctor` gives a hint, and no warning, for packages that code may need", async () => {
  const bin = mkdtempSync(join(directory, "bin-"));
  // A Python that finds no numpy.
  const python = join(bin, "python3");
  writeFileSync(python, '#!/bin/sh\n/usr/bin/python3 "$@" | sed \'s/"numpy", //\'\n', { mode: 0o755 });
  const env = { PATH: `${bin}:${process.env.PATH}` };
  const { stdout, stderr } = await runHere(["doctor", "--state-dir", join(directory, "none")], { env });
  expect(stdout).toMatch(
    /^ok\tPython and its libraries\t3\.\d+ at .*installs the missing libraries for sandboxes/m,
  );
  expect(stderr).not.toContain("Python");
});

test.each(["\u001b[", "\u001b]", "\u001b];", "\u001b[0;", "\u001b", "\u001b[0 "])(
  // A regular expression that searches the rest of the input for each sequence's end would take minutes.
  "a megabyte of the unterminated sequence %j takes linear time to filter",
  (part) => {
    const text = part.repeat(1_000_000 / part.length);
    expect(oneLine(text).length).toBeLessThanOrEqual(text.length);
    const filter = new TerminalFilter();
    let length = 0;
    for (let at = 0; at < text.length; at += 4096) length += filter.take(text.slice(at, at + 4096)).length;
    expect(length).toBeLessThanOrEqual(text.length);
  },
);

test.each([
  [["--name", "No!"], "--name must be"],
  [["--scopes", "tasks:run"], "--scopes needs --name"],
  [["--scopes", "bogus"], '"bogus", which is not one of sandbox:read'],
  [["--name", "ci", "--scopes", "bogus"], '"bogus", which is not one of sandbox:read'],
])("`token new` with %j is refused", async (options, words) => {
  const refusal = { code: 64, stdout: "", stderr: expect.stringContaining(words) };
  expect(await runHere(["token", "new", ...options])).toMatchObject(refusal);
});

test("`token new --name` grants all scopes unless --scopes names fewer", async () => {
  const scopes = async (...options: string[]) =>
    JSON.parse((await runHere(["token", "new", "--name", "ci", "--json", ...options])).stdout).entry.scopes;
  expect(await scopes()).toEqual(SCOPES);
  expect(await scopes("--scopes", "tasks:run")).toEqual(["tasks:run"]);
});

describe("token rotate", () => {
  const UNTIL = "2026-12-31T12:00:00Z";

  test("writes the new and the current token into .dev.vars, and keeps the other lines", () => {
    const file = join(directory, ".dev.vars");
    writeFileSync(file, "# mine\nexport SERVER_AUTH_TOKEN = 'the-token-of-now'\nLOG_LEVEL=warn\n");
    const { token, variables } = rotateOwner("the-token-of-now", UNTIL);
    expect(token).toMatch(/^[\w-]{43}$/);
    writeVariables(file, variables);
    expect({ ...parseEnv(readFileSync(file, "utf8")) }).toEqual({
      SERVER_AUTH_TOKEN: token,
      SERVER_AUTH_TOKEN_PREVIOUS: "the-token-of-now",
      SERVER_AUTH_TOKEN_PREVIOUS_UNTIL: UNTIL,
      LOG_LEVEL: "warn",
    });
    expect(readFileSync(file, "utf8")).toContain("# mine");
  });

  test("does not change a file that it cannot change safely", () => {
    const file = join(directory, "odd");
    writeFileSync(file, 'AUTH_TOKENS="[\n]"\n');
    expect(() => writeVariables(file, { AUTH_TOKENS: "[]" })).toThrow("cannot change safely");
    expect(readFileSync(file, "utf8")).toBe('AUTH_TOKENS="[\n]"\n');
    writeFileSync(file, "A='\nLOG_LEVEL=debug\n'\n");
    expect(() => writeVariables(file, { LOG_LEVEL: "warn" })).toThrow("cannot change safely");
  });

  test("prints the steps in an order that keeps the current token accepted", async () => {
    const { code, stdout, stderr } = await runHere(["token", "rotate", "--hours", "1"]);
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^[\w-]{43}\n$/)]);
    const puts = [...stderr.matchAll(/secret put (\w+)/g)].map(([, name]) => name);
    expect(puts).toEqual([
      "SERVER_AUTH_TOKEN_PREVIOUS",
      "SERVER_AUTH_TOKEN_PREVIOUS_UNTIL",
      "SERVER_AUTH_TOKEN",
    ]);
  });
});

describe("during a rotation, a server that may not have restarted yet", () => {
  test.each([
    ["old", ["Bearer new", "Bearer old"]],
    ["new", ["Bearer new", "Bearer new"]],
  ])("gets the token that it accepts: the %s one", async (accepts, expected) => {
    const presented: unknown[] = [];
    const listener: RequestListener = ({ headers }, response) => {
      presented.push(headers.authorization);
      response.writeHead(headers.authorization === `Bearer ${accepts}` ? 200 : 401).end("{}");
    };
    const url = await serve(listener, "/mcp");
    const address = { url, token: "new", tokenSource: VARIABLES_FILE, isLocal: true, tokenBefore: "old" };
    expect((await http(address, "/x", { method: "PUT", body: "sent once" })).status).toBe(200);
    expect(presented).toEqual(expected);
  });
});

test("an error says that a refused token of .dev.vars may be newer than the server", async () => {
  const fetched = vi
    .spyOn(globalThis, "fetch")
    .mockImplementation(async () => Response.json({}, { status: 401 }));
  const explainRefusal = (tokenSource: string) =>
    http({ url: "http://127.0.0.1:1/mcp", token: "t", tokenSource, isLocal: true }, "/x").catch(String);
  try {
    expect(await explainRefusal(VARIABLES_FILE)).toContain("start the server again");
    expect(await explainRefusal("--token")).not.toContain("start the server again");
  } finally {
    fetched.mockRestore();
  }
});

describe("a terminal", () => {
  const ESC = "\u001b";

  test.each([
    [
      "text, colours and cursor movements",
      `a${ESC}[31mb${ESC}[2;3Hc\u0007\r\n`,
      `a${ESC}[31mb${ESC}[2;3Hc\u0007\r\n`,
    ],
    ["no access to the clipboard", `a${ESC}]52;c;QUJD\u0007b`, "ab"],
    [
      "no window title, however its sequence ends",
      `a${ESC}]0;t${ESC}\\b${ESC}Pq${ESC}\\c${ESC}_x\u0018d`,
      "abcd",
    ],
    ["no 8-bit control characters", "a\u009d52;c;QUJD\u009cb\u009bc", "abc"],
    [
      "the sequences of full-screen programs and line editors",
      `${ESC}[?1049h${ESC}[1;24r${ESC}(0q${ESC}(B${ESC}=${ESC}[38;2;1;2;3m${ESC}[4:3m${ESC}[?25l${ESC}[2 q${ESC}7${ESC}8${ESC}[6n`,
      `${ESC}[?1049h${ESC}[1;24r${ESC}(0q${ESC}(B${ESC}=${ESC}[38;2;1;2;3m${ESC}[4:3m${ESC}[?25l${ESC}[2 q${ESC}7${ESC}8${ESC}[6n`,
    ],
    [
      "no sequences that request a reply",
      `a${ESC}[c${ESC}[>0c${ESC}[5n${ESC}[?6n${ESC}[21t${ESC}[x${ESC}[?1$p${ESC}[>q${ESC}[?u${ESC}Z\u0005b`,
      "ab",
    ],
    [
      "no keyboard modes, even in one sequence with other modes",
      `a${ESC}[>4;2m${ESC}[>1u${ESC}[=1u${ESC}[?9001h${ESC}[?1004h${ESC}[20h${ESC}[?1006;1004;1000hb`,
      `a${ESC}[?1006;1000hb`,
    ],
    [
      "a sequence that a control character interrupts, but not its ESC",
      `a${ESC}\n]52;c;QUJD\u0007b`,
      "a\n]52;c;QUJD\u0007b",
    ],
    [
      "only numbers up to 9999",
      `${ESC}[2147483647S${ESC}[99999;1H${ESC}[38;2;255;128;0m`,
      `${ESC}[9999S${ESC}[9999;1H${ESC}[38;2;255;128;0m`,
    ],
    [
      "no reset, no request to print, and no title in the format of GNU screen",
      `a${ESC}c${ESC}[5i${ESC}kt${ESC}\\b`,
      "ab",
    ],
    ["no part of a sequence that does not end", `a${ESC}]52;${"x".repeat(100)}`, "a"],
  ])("receives %s", (_what, printed, shown) => {
    for (const size of [1, 2, 3, printed.length]) {
      const filter = new TerminalFilter();
      const parts = printed.match(new RegExp(`[^]{1,${size}}`, "gu")) ?? [];
      expect(parts.map((part) => filter.take(part)).join("")).toBe(shown);
    }
  });

  test.each([
    ["after coloured text", `text${ESC}[31m`, ""],
    [
      "after an editor's screen, which restores the cursor",
      `${ESC}[?1049h${ESC}[?1;1000h${ESC}[2;5r${ESC}=${ESC}[?25l${ESC}[2 q`,
      `${ESC}>${ESC}[0 q${ESC}[?1l${ESC}[?25h${ESC}[?1000l${ESC}[r${ESC}[999;1H${ESC}[?1049l`,
    ],
    [
      "after an editor's screen that was already closed",
      `${ESC}[?1049h${ESC}[?7l${ESC}[4h${ESC}[?1049l`,
      `${ESC}[4l${ESC}[?7h`,
    ],
  ])("has its original modes again after the command ends: %s", (_what, printed, written) => {
    const filter = new TerminalFilter();
    filter.take(printed);
    expect(filter.resetSequences()).toBe(`${ESC}[0m${ESC}(B${ESC})B\u000f${written}`);
  });

  test("sends keys in order, sends those of a running call together after it, and ends with Ctrl-]", async () => {
    const sent: string[] = [];
    const first = Promise.withResolvers<void>();
    const done = Promise.withResolvers<void>();
    const keyboard = new Keyboard(
      async (text) => {
        sent.push(text);
        if (sent.length === 1) await first.promise;
        else done.resolve();
      },
      (error) => done.reject(error),
    );
    const [head, tail] = [Buffer.from("ž").subarray(0, 1), Buffer.from("ž").subarray(1)];
    expect(keyboard.press(Buffer.from("l"))).toBe(false);
    expect(keyboard.press(Buffer.concat([Buffer.from("s "), head]))).toBe(false);
    expect(keyboard.press(Buffer.concat([tail, Buffer.from("\r\u001dlost")]))).toBe(true);
    first.resolve();
    await done.promise;
    expect(sent).toEqual(["l", "s ž\r"]);
  });

  test("is required for a shell", async () => {
    expect(await runHere(["shell"])).toMatchObject({
      code: 64,
      stderr: expect.stringContaining("For a script:"),
    });
  });
});

const PREREQUISITES = "check-prerequisites.sh";

test("scripts/check-prerequisites.sh prints JSON before anything is installed", () => {
  const copy = temporaryDirectory();
  cpSync(new URL(`../../scripts/${PREREQUISITES}`, import.meta.url), join(copy, "scripts", PREREQUISITES));
  const check = (path: string, ...words: string[]) => {
    const env = { PATH: path };
    const { stdout, status } = spawnSync("/bin/sh", [join(copy, "scripts", PREREQUISITES), ...words], {
      env,
    });
    return { status, ...JSON.parse(stdout.toString()) };
  };
  expect(check(process.env.PATH ?? "")).toMatchObject({
    installed: false,
    checks: { node: { ok: true, found: process.version }, wrangler: { needed_for: "deploy" } },
  });
  const bare = join(copy, "bin");
  mkdirSync(bare);
  for (const name of ["sh", "dirname", "head", "tr"]) symlinkSync(`/usr/bin/${name}`, join(bare, name));
  expect(check(bare, "--deploy")).toMatchObject({
    status: 1,
    success: false,
    checks: { node: { ok: false, found: "" } },
    issues: expect.arrayContaining([
      expect.stringContaining(`install ${NEEDED_NODE}, from`),
      expect.stringMatching(/^docker is missing: /),
    ]),
  });
});
