/** The official conformance suite against the running server; tests/conformance/README.md says what cannot pass and why. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, request as send, type Server as HTTPServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import expectedFailures from "../conformance/expected-failures.json" with { type: "json" };
import { repository, type Server, startServer, TOKEN } from "../setup/server.ts";

const run = promisify(execFile);

/** The revisions that the suite has server scenarios for, each with some that must have run. */
const REVISIONS: [revision: string, scenarios: string[]][] = [
  ["2025-06-18", ["server-initialize", "ping", "tools-list"]],
  ["2025-11-25", ["server-initialize", "ping", "tools-list", "dns-rebinding-protection"]],
  [
    "2026-07-28",
    ["server-stateless", "tools-list", "caching", "http-header-validation", "dns-rebinding-protection"],
  ],
];

interface Check {
  id: string;
  status: "SUCCESS" | "FAILURE" | "WARNING" | "SKIPPED" | "INFO";
  errorMessage?: string;
}

let server: Server;
let proxy: HTTPServer;
let results: string;
const failed = new Set<string>();

beforeAll(async () => {
  server = await startServer();
  proxy = await authorizingProxy(new URL(server.url), TOKEN);
  results = mkdtempSync(join(tmpdir(), "sandbox-mcp-conformance-"));
});

afterAll(async () => {
  proxy?.close();
  await server?.stop();
  rmSync(results, { recursive: true, force: true });
});

/** Adds the token to every request. */
async function authorizingProxy(target: URL, token: string): Promise<HTTPServer> {
  const listening = createServer((incoming, outgoing) => {
    const headers = { ...incoming.headers, authorization: `Bearer ${token}` };
    const { hostname, port } = target;
    const onward = send(
      { hostname, port, path: incoming.url, method: incoming.method, headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      },
    );
    onward.on("error", () => outgoing.destroy());
    outgoing.on("close", () => onward.destroy());
    incoming.pipe(onward);
  });
  listening.listen(0, "127.0.0.1");
  await once(listening, "listening");
  return listening;
}

/** Runs all scenarios of a revision. @returns each scenario's checks */
async function conformance(revision: string): Promise<Map<string, Check[]>> {
  const { port } = proxy.address() as AddressInfo;
  const output = join(results, revision);
  const program = join(repository, "node_modules/@modelcontextprotocol/conformance/dist/index.js");
  const target = ["--url", `http://127.0.0.1:${port}/mcp`, "--suite", "all", "--spec-version", revision];
  // Its exit status only counts failures; the files say which they are.
  await run(process.execPath, [program, "server", ...target, "-o", output]).catch(() => undefined);
  const scenarios = readdirSync(output).map((directory): [string, Check[]] => {
    const scenario = directory.replace(/^server-/, "").replace(/-\d{4}-\d\d-\d\dT.*$/, "");
    return [scenario, JSON.parse(readFileSync(join(output, directory, "checks.json"), "utf8"))];
  });
  return new Map(scenarios);
}

const listed = new Set(expectedFailures.flatMap(({ checks }) => checks));

describe("conformance", () => {
  it.each(REVISIONS)("to %s: fails nothing but what is listed", async (revision, required) => {
    const scenarios = await conformance(revision);
    expect([...scenarios.keys()]).toEqual(expect.arrayContaining(required));
    const unexpected: string[] = [];
    for (const [scenario, checks] of scenarios) {
      for (const { id, status, errorMessage } of checks) {
        if (status !== "FAILURE") continue;
        const name = `${scenario}:${id}`;
        if (listed.has(name)) failed.add(name);
        else unexpected.push(`${name}: ${errorMessage ?? ""}`);
      }
    }
    expect(unexpected).toEqual([]);
  });

  it("lists nothing that does not fail", () => {
    expect([...listed].filter((check) => !failed.has(check))).toEqual([]);
  });
});
