import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { validate } from "../../cli/configuration.ts";
import { text as textOf } from "node:stream/consumers";
import { runCLI, runHere, startCLI } from "../setup/cli.ts";
import { DeploymentCopy } from "../setup/deployment.ts";
import { serve } from "../setup/serve.ts";
import { until } from "../setup/until.ts";

let copy: DeploymentCopy;
let directory: string;

beforeEach(() => {
  copy = new DeploymentCopy();
  ({ directory } = copy);
});
afterEach(() => copy.remove());

describe("deploy", () => {
  /** A stub of wrangler: it records its arguments and secrets, and prints the file that has the command's name, if it exists. */
  const WRANGLER_STUB = `#!${process.execPath}
const { appendFileSync, readFileSync, existsSync } = require("node:fs");
const args = process.argv.slice(2);
const at = args.indexOf("--secrets-file");
const secrets = at < 0 ? undefined : JSON.parse(readFileSync(args[at + 1], "utf8"));
appendFileSync(__dirname + "/calls", JSON.stringify({ args, secrets, pid: process.pid }) + "\\n");
const output = __dirname + "/" + args.filter((word) => /^\\w/.test(word)).slice(0, 2).join("-");
if (existsSync(output + "-fails")) { console.error(readFileSync(output + "-fails", "utf8")); process.exit(1); }
if (existsSync(output + "-hangs")) setInterval(() => undefined, 1000);
else if (existsSync(output)) console.log(readFileSync(output, "utf8"));
else if (args[0] === "deploy" && !args.includes("--dry-run"))
  console.log("Deployed sandbox-mcp triggers (1.00 sec)\\n  https://sandbox-mcp.me.workers.dev\\n");
`;

  beforeEach(() => {
    copy.replace("package.json", /"predeploy": "[^"]*"/, '"predeploy": "true"');
    for (const [name, text] of [
      ["wrangler.cjs", WRANGLER_STUB],
      ["docker", "#!/bin/sh\necho 27.0\n"],
    ] as const) {
      writeFileSync(join(directory, name), text);
      chmodSync(join(directory, name), 0o755);
    }
    vi.stubEnv("PATH", `${directory}:${process.env.PATH}`);
    for (const name of ["SERVER_AUTH_TOKEN", "ANTHROPIC_API_KEY"]) vi.stubEnv(name, undefined);
  });
  afterEach(() => vi.unstubAllEnvs());

  const deploy = (...args: string[]) =>
    runHere(["deploy", directory, "--wrangler", join(directory, "wrangler.cjs"), ...args]);

  const recordedCalls = (): { args: string[]; secrets?: Record<string, string>; pid: number }[] =>
    copy
      .read("calls")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));

  it("prints every step in a dry run, and changes nothing", async () => {
    const before = readdirSync(directory, { recursive: true });
    const config = copy.read("wrangler.jsonc");
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
    expect(readdirSync(directory, { recursive: true }).toSorted()).toEqual([...before, "calls"].toSorted());
    expect(copy.read("wrangler.jsonc")).toBe(config);
    expect(recordedCalls().map(({ args }) => args.slice(0, 2))).toEqual([["deploy", "--dry-run"]]);
  });

  it("names its commands as `npm run cli --` if npm started it", async () => {
    const args = ["deploy", directory, "--wrangler", join(directory, "wrangler.cjs"), "--dry-run"];
    const { stdout } = await runCLI(args, { env: { npm_lifecycle_event: "cli" } });
    expect(stdout).toMatch(/: npm run cli -- validate$[^]*: npm run cli -- verify </m);
    expect(stdout).not.toMatch(/sandbox-mcp [a-z]/);
  });

  it("sets the secrets with the deployment, and writes the hosts into the configuration", async () => {
    writeFileSync(join(directory, "secret-list-fails"), "Worker not found. [code: 10007]");
    vi.stubEnv("SERVER_AUTH_TOKEN", "the-token-of-the-owner");
    vi.stubEnv("ANTHROPIC_API_KEY", "the-key-of-the-model");
    const args = ["--yes", "--json", "--no-verify", "--preview-host", "p.example.net"];
    const { code, stdout } = await deploy(...args);
    expect([code, JSON.parse(stdout)]).toEqual([
      0,
      expect.objectContaining({
        success: true,
        dry_run: false,
        url: "https://sandbox-mcp.me.workers.dev",
        token: "the-token-of-the-owner",
      }),
    ]);
    const calls = recordedCalls();
    expect(calls.map(({ args: [first, second] }) => `${first} ${second ?? ""}`.trim())).toEqual([
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
    const config = copy.read("wrangler.jsonc");
    expect(config).toContain('"PREVIEW_HOST": "p.example.net"');
    expect(config).toContain('"*.p.example.net/*"');
    expect(config).toContain("// Settings of the SDK");
    expect(validate(directory).filter(({ verdict }) => verdict === "failed")).toEqual([]);
  });

  it.each([
    ["no --yes", [], () => undefined, 64, "--yes"],
    [
      "a mistake in the configuration",
      ["--yes"],
      () => copy.replace("wrangler.jsonc", '"standard-1"', '"dev"'),
      1,
      "instance type",
    ],
    [
      "no login",
      ["--yes"],
      () => writeFileSync(join(directory, "whoami"), '{"loggedIn": false}'),
      77,
      "npx wrangler login",
    ],
    // Without the list, the deployment could replace a token that clients use.
    [
      "an error instead of the list of secrets",
      ["--yes"],
      () => writeFileSync(join(directory, "secret-list-fails"), "Internal error"),
      1,
      "could not list",
    ],
    [
      "no token, and no terminal to show a new one",
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
  ])("ends with an error if there is %s", async (_what, args, spoil, code, message) => {
    spoil();
    expect(await deploy(...args)).toMatchObject({ code, stderr: expect.stringContaining(message) });
  });

  it("leaves no secret and no process behind when it is stopped", async () => {
    writeFileSync(join(directory, "secret-list-fails"), "Worker not found. [code: 10007]");
    writeFileSync(join(directory, "deploy-hangs"), "");
    const TMPDIR = join(directory, "tmp");
    mkdirSync(TMPDIR);
    const args = ["deploy", directory, "--wrangler", join(directory, "wrangler.cjs"), "--yes"];
    const running = startCLI(args, { env: { SERVER_AUTH_TOKEN: "the-token-of-the-owner", TMPDIR } });
    await until(() => existsSync(join(directory, "calls")) && copy.read("calls").includes("--secrets-file"));
    const { pid } = recordedCalls().at(-1) ?? {};
    running.kill("SIGINT");
    const { code, stderr } = await running.ended;
    expect([code, stderr]).toEqual([130, expect.stringMatching(/\nStopped\. Finished steps are kept/)]);
    expect(readdirSync(TMPDIR).filter((name) => name.startsWith("sandbox-mcp-"))).toEqual([]);
    await until(() => !existsSync(`/proc/${pid}`));
  });

  it("retries until the first container has started", async () => {
    let refusals = 2;
    const called: string[] = [];
    const origin = await serve(async (request, response) => {
      if (request.url === "/health") return response.end('{"status":"healthy"}');
      if (request.method !== "POST") return response.writeHead(405).end();
      const { id, method, params } = JSON.parse(await textOf(request));
      if (id === undefined) return response.writeHead(202).end();
      const name = params?.name ?? method;
      if (method === "tools/call") called.push(name);
      const isError = name === "run_command" && refusals-- > 0;
      const resultText = isError ? "The sandbox could not be started now." : "done";
      const result =
        method === "initialize"
          ? {
              protocolVersion: params.protocolVersion,
              capabilities: { tools: {} },
              serverInfo: { name: "s", version: "1" },
            }
          : method === "tools/list"
            ? { tools: [] }
            : { content: [{ type: "text", text: resultText }], isError };
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ jsonrpc: "2.0", id, result }));
    });
    writeFileSync(join(directory, "secret-list"), "[]");
    writeFileSync(join(directory, "deploy"), `Deployed\n  ${origin}\n`);
    vi.stubEnv("SERVER_AUTH_TOKEN", "the-token-of-the-owner");
    const { stderr } = await deploy("--yes");
    expect(stderr).toContain(
      "first container, which can take minutes. The sandbox could not be started now.",
    );
    expect(called.slice(0, 4)).toEqual(["run_command", "run_command", "run_command", "destroy_sandbox"]);
  });

  it("keeps an existing token", async () => {
    writeFileSync(join(directory, "secret-list"), '[{ "name": "SERVER_AUTH_TOKEN", "type": "secret_text" }]');
    expect(await deploy("--yes")).toMatchObject({
      code: 0,
      stdout: "https://sandbox-mcp.me.workers.dev/mcp\n",
      stderr: expect.stringContaining("verify https://sandbox-mcp.me.workers.dev <token>"),
    });
    expect(recordedCalls().at(-1)?.args).toEqual(["deploy"]);
  });
});
