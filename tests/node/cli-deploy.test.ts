/** `sandbox-mcp validate` finds each classic mistake by its name, and names the line; `deploy` does its steps in order. */
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { validate } from "../../cli/configuration.ts";
import { runHere } from "../setup/cli.ts";
import { repository } from "../setup/server.ts";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-validate-"));
  mkdirSync(join(directory, "src"));
  for (const file of ["wrangler.jsonc", "Dockerfile", "package.json", "src/index.ts"])
    cpSync(join(repository, file), join(directory, file));
});
afterEach(() => rmSync(directory, { recursive: true }));

function replace(file: string, what: string | RegExp, by: string): void {
  const before = readFileSync(join(directory, file), "utf8");
  const after = before.replace(what, by);
  expect(after).not.toBe(before);
  writeFileSync(join(directory, file), after);
}

const failed = () => validate(directory).filter(({ verdict }) => verdict === "failed");

it("finds nothing wrong with the repository's own", () => {
  expect(failed()).toEqual([]);
  expect(validate(directory).length).toBeGreaterThanOrEqual(10);
});

it.each([
  ["main", "wrangler.jsonc", "src/index.ts", "src/worker.ts"],
  ["nodejs_compat", "wrangler.jsonc", '"nodejs_compat", ', ""],
  ["compatibility_date", "wrangler.jsonc", "2026-09-01", "2999-01-01"],
  ["binding names", "wrangler.jsonc", '"name": "Sandbox"', '"name": "SANDBOX"'],
  ["migrations", "wrangler.jsonc", "new_sqlite_classes", "new_classes"],
  [
    "container class",
    "wrangler.jsonc",
    '"class_name": "Sandbox",\n      "image"',
    '"class_name": "Box",\n      "image"',
  ],
  ["classes exported", "src/index.ts", /ContainerProxy/g, "Proxy"],
  ["instance type", "wrangler.jsonc", '"standard-1"', '"dev"'],
  ["max_instances", "wrangler.jsonc", '"max_instances": 20,', ""],
  ["base image", "Dockerfile", /sandbox:\d+\.\d+\.\d+/, "sandbox:0.1.0"],
  ["storage", "wrangler.jsonc", '"RESULTS"', '"BUCKET"'],
  ["no secret in vars", "wrangler.jsonc", '"vars": {', '"vars": { "SERVER_AUTH_TOKEN": "in-plain-text",'],
] as const)("%s", (name, file, what, by) => {
  replace(file, what, by);
  expect(failed()).toEqual([
    {
      name,
      verdict: "failed",
      found: expect.stringMatching(/line \d+|lacks/),
      fix: expect.stringMatching(/.{10}/),
    },
  ]);
});

it.each([
  ['"huge"', ["instance type"]],
  ['"standard-5"', ["instance type"]],
  ["[]", ["instance type"]],
  ['{ "vcpu": 2, "memory": 4096 }', ["instance type"]],
  ['"standard-4"', []],
  ['{ "vcpu": 2, "memory_mib": 4096, "disk_mb": 8000 }', []],
])("an instance type of %s", (value, names) => {
  replace("wrangler.jsonc", '"standard-1"', value);
  expect(failed().map(({ name }) => name)).toEqual(names);
});

it("names the line to change", () => {
  replace("wrangler.jsonc", '"standard-1"', '"lite"');
  const lines = readFileSync(join(directory, "wrangler.jsonc"), "utf8").split("\n");
  const line = lines.findIndex((each) => each.includes('"lite"')) + 1;
  expect(failed()[0]?.found).toBe(`wrangler.jsonc, line ${line}`);
});

it.each([
  ["a file that is not there", () => rmSync(join(directory, "wrangler.jsonc")), "no "],
  ["a file that is no JSON", () => replace("wrangler.jsonc", "{", "{{"), "no JSON at line"],
  [
    "a value of another type",
    () => replace("wrangler.jsonc", '"containers": [', '"containers": 1, "x": ['),
    "containers: ",
  ],
])("%s is one failure", (_name, spoil, found) => {
  spoil();
  expect(failed()).toEqual([expect.objectContaining({ found: expect.stringContaining(found) })]);
});

it("a weak token in .dev.vars is one", () => {
  writeFileSync(join(directory, ".dev.vars"), "SERVER_AUTH_TOKEN=short\n");
  expect(failed()).toEqual([expect.objectContaining({ name: ".dev.vars" })]);
});

describe("verify with a token that is refused", () => {
  it.each([
    [["the-token"], {}, "the argument [token]"],
    [[], { SANDBOX_MCP_TOKEN: "the-token" }, "SANDBOX_MCP_TOKEN"],
  ])("says where it is from and which one is right: %j", async (words, env, source) => {
    const server = createServer(({ url }, response) => {
      response.statusCode = url === "/health" ? 200 : 401;
      response.end(JSON.stringify(url === "/health" ? { status: "healthy" } : { error: "invalid_token" }));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const { code, stdout } = await runHere(["verify", url, ...words, "--json"], { env });
    server.close();
    const { checks } = JSON.parse(stdout);
    expect([code, checks.at(-1)]).toMatchObject([
      1,
      {
        found: expect.stringContaining(`the token of ${source}: `),
        fix: expect.stringContaining("SERVER_AUTH_TOKEN"),
      },
    ]);
  });
});

describe("deploy", () => {
  /** A wrangler that notes its arguments and the secrets that it gets, and knows an account. */
  const STAND_IN = `#!${process.execPath}
const { appendFileSync, readFileSync, existsSync } = require("node:fs");
const words = process.argv.slice(2);
const at = words.indexOf("--secrets-file");
const secrets = at < 0 ? undefined : JSON.parse(readFileSync(words[at + 1], "utf8"));
appendFileSync(__dirname + "/said", JSON.stringify({ words, secrets }) + "\\n");
const answer = __dirname + "/" + words.filter((word) => /^\\w/.test(word)).slice(0, 2).join("-");
if (existsSync(answer + "-fails")) { console.error(readFileSync(answer + "-fails", "utf8")); process.exit(1); }
if (existsSync(answer)) console.log(readFileSync(answer, "utf8"));
else if (words[0] === "deploy" && !words.includes("--dry-run"))
  console.log("Deployed sandbox-mcp triggers (1.00 sec)\\n  https://sandbox-mcp.me.workers.dev\\n");
`;

  beforeEach(() => {
    replace("package.json", /"predeploy": "[^"]*"/, '"predeploy": "true"');
    for (const [name, text] of [
      ["wrangler.cjs", STAND_IN],
      ["docker", "#!/bin/sh\necho 27.0\n"],
    ] as const) {
      writeFileSync(join(directory, name), text);
      chmodSync(join(directory, name), 0o755);
    }
    vi.stubEnv("PATH", `${directory}:${process.env.PATH}`);
    for (const name of ["SERVER_AUTH_TOKEN", "ANTHROPIC_API_KEY"]) vi.stubEnv(name, undefined);
  });
  afterEach(() => vi.unstubAllEnvs());

  const deploy = (...words: string[]) =>
    runHere(["deploy", directory, "--wrangler", join(directory, "wrangler.cjs"), ...words]);

  const said = (): { words: string[]; secrets?: Record<string, string> }[] =>
    readFileSync(join(directory, "said"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));

  it("says every step in a dry run, and changes nothing", async () => {
    const before = readdirSync(directory, { recursive: true });
    const config = readFileSync(join(directory, "wrangler.jsonc"), "utf8");
    const { code, stdout } = await deploy("--dry-run", "--preview-host", "p.example.net");
    expect(code).toBe(0);
    const names = [...stdout.matchAll(/^\d+\. ([^:]+):/gm)].map(([, name]) => name);
    expect(names).toEqual([
      "configuration",
      "Docker",
      "hosts",
      "login",
      "secrets",
      "storage",
      "build",
      "image and Worker",
      "wildcard host",
      "verify",
    ]);
    expect(readdirSync(directory, { recursive: true }).toSorted()).toEqual([...before, "said"].toSorted());
    expect(readFileSync(join(directory, "wrangler.jsonc"), "utf8")).toBe(config);
    expect(said().map(({ words }) => words.slice(0, 2))).toEqual([["deploy", "--dry-run"]]);
  });

  it("sets the secrets with the deployment, and writes the hosts into the configuration", async () => {
    writeFileSync(join(directory, "secret-list-fails"), "Worker not found. [code: 10007]");
    vi.stubEnv("SERVER_AUTH_TOKEN", "the-token-of-the-owner");
    vi.stubEnv("ANTHROPIC_API_KEY", "the-key-of-the-model");
    const words = ["--yes", "--json", "--no-verify", "--preview-host", "p.example.net"];
    const { code, stdout } = await deploy(...words);
    expect([code, JSON.parse(stdout)]).toEqual([
      0,
      expect.objectContaining({
        success: true,
        dry_run: false,
        url: "https://sandbox-mcp.me.workers.dev",
        token: "the-token-of-the-owner",
      }),
    ]);
    const calls = said();
    expect(calls.map(({ words: [first, second] }) => `${first} ${second ?? ""}`.trim())).toEqual([
      "whoami --json",
      "secret list",
      "deploy --dry-run",
      "deploy --secrets-file",
    ]);
    expect(calls.at(-1)?.secrets).toEqual({
      SERVER_AUTH_TOKEN: "the-token-of-the-owner",
      ANTHROPIC_API_KEY: "the-key-of-the-model",
      LINK_KEY: expect.stringMatching(/^[\w-]{43}$/),
    });
    const config = readFileSync(join(directory, "wrangler.jsonc"), "utf8");
    expect(config).toContain('"PREVIEW_HOST": "p.example.net"');
    expect(config).toContain('"*.p.example.net/*"');
    expect(config).toContain("// The SDK's own");
    expect(failed()).toEqual([]);
  });

  it.each([
    ["no agreement", [], () => undefined, 64, "--yes"],
    ["a mistake", ["--yes"], () => replace("wrangler.jsonc", '"standard-1"', '"dev"'), 1, "instance type"],
    [
      "nobody logged in",
      ["--yes"],
      () => writeFileSync(join(directory, "whoami"), '{"loggedIn": false}'),
      77,
      "npx wrangler login",
    ],
    // Else a token that is in use would be replaced.
    [
      "a list of secrets that does not come",
      ["--yes"],
      () => writeFileSync(join(directory, "secret-list-fails"), "Internal error"),
      1,
      "does not list",
    ],
    [
      "no token, and nobody to be told a new one",
      ["--yes"],
      () => writeFileSync(join(directory, "secret-list"), "[]"),
      64,
      "token new",
    ],
    [
      "a host that the server would refuse",
      ["--yes", "--preview-host", "a.workers.dev"],
      () => undefined,
      64,
      "workers.dev",
    ],
  ])("stops at %s", async (_what, words, spoil, code, message) => {
    spoil();
    expect(await deploy(...words)).toMatchObject({ code, stderr: expect.stringContaining(message) });
  });

  it("leaves a token that is there", async () => {
    writeFileSync(join(directory, "secret-list"), '[{ "name": "SERVER_AUTH_TOKEN", "type": "secret_text" }]');
    expect(await deploy("--yes")).toMatchObject({
      code: 0,
      stdout: "https://sandbox-mcp.me.workers.dev/mcp\n",
      stderr: expect.stringContaining("verify https://sandbox-mcp.me.workers.dev <token>"),
    });
    expect(said().at(-1)?.words).toEqual(["deploy"]);
  });
});
