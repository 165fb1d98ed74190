/**
 * The official conformance suite against a running server. tests/conformance/README.md explains the expected
 * failures.
 */
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { type IncomingHttpHeaders, request as send } from "node:http";
import { join } from "node:path";
import { describe, expect, inject, it } from "vitest";
import { runFile } from "../../local/engine/host-programs.ts";
import expectedFailures from "../conformance/expected-failures.json" with { type: "json" };
import { MCPClient } from "../setup/mcp-client.ts";
import { repository, TOKEN } from "../setup/server.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { serve } from "../setup/serve.ts";

/** Revisions with server scenarios, and some scenarios that must have run for each. */
const REVISIONS: [revision: string, scenarios: string[]][] = [
  ["2025-06-18", ["server-initialize", "ping", "tools-list"]],
  ["2025-11-25", ["server-initialize", "ping", "tools-list", "dns-rebinding-protection"]],
  [
    "2026-07-28",
    ["server-stateless", "tools-list", "caching", "http-header-validation", "dns-rebinding-protection"],
  ],
];

/** The Skills scenarios that apply. The directory scenario only reports that it does not apply. */
const SKILL_SCENARIOS = ["sep-2640-skills-enumeration", "sep-2640-skills-manifest"];

/** The other scenarios of the Tasks extension need tools that this server does not have. */
const TASK_SCENARIOS = [
  "tasks-lifecycle",
  "tasks-capability-negotiation",
  "tasks-wire-fields",
  "tasks-request-state-removal",
  "tasks-request-headers",
  "tasks-dispatch-and-envelope",
];

interface Check {
  id: string;
  status: "SUCCESS" | "FAILURE" | "WARNING" | "SKIPPED" | "INFO";
  errorMessage?: string;
}

const server = inject("server");
const results = temporaryDirectory();
const failed = new Set<string>();

/** A directory with a file for each greeting. Reading such a file replaces the suite's tool `greet`. */
const GREETINGS = "/tmp/greetings";

/** A command in a new session. */
const commandOf = (command: string) => ({
  name: "run_command",
  arguments: { command, session: randomBytes(8).toString("hex") },
});

/** The tools of the suite's fixture server, as calls of this server's tools. */
const FIXTURES: Record<string, (args: Record<string, unknown>) => { name: string; arguments: object }> = {
  greet: ({ name }) => ({ name: "read_file", arguments: { path: `${GREETINGS}/${String(name)}` } }),
  slow_compute: ({ seconds }) => commandOf(`sleep ${Number(seconds)}`),
  failing_job: () => commandOf("sleep 1; exit 3"),
  // This command asks nothing, but the suite still gets a response to tasks/update.
  confirm_delete: () => commandOf("sleep 1"),
};

/** Translates a request to the fixture server. */
function translate(
  headers: IncomingHttpHeaders,
  body: Buffer,
): { headers: IncomingHttpHeaders; body: Buffer } {
  const message = JSON.parse(String(body) || "{}");
  const fixture = message.method === "tools/call" ? FIXTURES[message.params?.name] : undefined;
  if (!fixture) return { headers, body };
  const call = fixture(message.params.arguments ?? {});
  const params = { ...message.params, ...call };
  const translation = Buffer.from(JSON.stringify({ ...message, params }));
  return {
    headers: { ...headers, "mcp-name": call.name, "content-length": String(translation.length) },
    body: translation,
  };
}

/** A proxy that adds the token and translates calls of the fixture server's tools. Returns its URL. */
function authorizingProxy(target: URL, token: string): Promise<string> {
  return serve(async (incoming, outgoing) => {
    const sent = Buffer.concat(await incoming.toArray());
    const { headers: given, body } = translate(incoming.headers, sent);
    const headers = { ...given, authorization: `Bearer ${token}` };
    const { hostname, port } = target;
    const onward = send(
      { hostname, port, path: incoming.url, method: incoming.method, headers },
      async (reply) => {
        const { "content-length": _, ...kept } = reply.headers;
        outgoing.writeHead(reply.statusCode ?? 502, kept);
        // The suite expects exactly the greeting, but read_file puts a fence around it.
        for await (const piece of reply.setEncoding("utf8"))
          outgoing.write(String(piece).replaceAll(/```\\n(Hello, [\w-]+!)\\n```/g, "$1"));
        outgoing.end();
      },
    );
    onward.on("error", () => outgoing.destroy());
    outgoing.on("close", () => onward.destroy());
    onward.end(body);
  }, "/mcp");
}

const proxy = await authorizingProxy(new URL(server.url), TOKEN);

/** Runs the suite with these options. Returns the checks of each scenario. */
async function conformance(name: string, options: string[]): Promise<Map<string, Check[]>> {
  const output = join(results, name);
  const program = join(
    repository,
    "tests/clients/node_modules/@modelcontextprotocol/conformance/dist/index.js",
  );
  const target = ["--url", proxy, ...options];
  // The exit status only counts failures, so it is ignored. The files name them.
  await runFile(process.execPath, [program, "server", ...target, "-o", output]).catch(() => undefined);
  const scenarios = readdirSync(output).map((directory): [string, Check[]] => {
    const scenario = directory.replace(/^server-/, "").replace(/-\d{4}-\d\d-\d\dT.*$/, "");
    return [scenario, JSON.parse(readFileSync(join(output, directory, "checks.json"), "utf8"))];
  });
  return new Map(scenarios);
}

/** Failed checks that are not on the list of expected failures. */
function findUnexpected(scenarios: Map<string, Check[]>): string[] {
  const failures: string[] = [];
  for (const [scenario, checks] of scenarios) {
    for (const { id, status, errorMessage } of checks) {
      if (status !== "FAILURE") continue;
      const name = `${scenario}:${id}`;
      if (listed.has(name)) failed.add(name);
      else failures.push(`${name}: ${errorMessage ?? ""}`);
    }
  }
  return failures;
}

const listed = new Set(expectedFailures.flatMap(({ checks }) => checks));

describe("conformance", () => {
  it.each(REVISIONS)("to revision %s fails only in listed checks", async (revision, required) => {
    const scenarios = await conformance(revision, ["--suite", "all", "--spec-version", revision]);
    expect([...scenarios.keys()]).toEqual(expect.arrayContaining(required));
    expect(findUnexpected(scenarios)).toEqual([]);
  });

  it("to the Tasks extension fails only in listed checks", async () => {
    const names = ["World", "sep-2243", "header-mismatch", "legacy-hint", "rt"];
    const command = `mkdir -p ${GREETINGS} && for name in ${names.join(" ")}; do echo "Hello, $name!" > ${GREETINGS}/$name; done`;
    await new MCPClient(server.url, TOKEN).call("run_command", { command });
    const scenarios = new Map<string, Check[]>();
    // One after the other, because the suite allows each 30 s.
    for (const name of TASK_SCENARIOS)
      for (const [scenario, checks] of await conformance(name, ["--scenario", name]))
        scenarios.set(scenario, checks);
    expect([...scenarios.keys()].toSorted()).toEqual(TASK_SCENARIOS.toSorted());
    expect(findUnexpected(scenarios)).toEqual([]);
  });

  it("to the Skills extension passes every check that applies", async () => {
    const ran = await Promise.all(SKILL_SCENARIOS.map((name) => conformance(name, ["--scenario", name])));
    const checks = ran.flatMap((one) => one.values().toArray().flat());
    const passed = checks.filter(({ status }) => status === "SUCCESS").map(({ id }) => id);
    expect(passed).toEqual(
      expect.arrayContaining([
        "sep-2640-skills-list-implemented",
        "sep-2640-skills-get-implemented",
        "sep-2640-resources-digest-format",
        "sep-2640-entry-frontmatter-identical",
        "sep-2640-skillmd-mimetype",
        "sep-2640-skillmd-metadata-description",
      ]),
    );
    expect(checks.filter(({ id }) => !passed.includes(id))).toEqual([]);
  });

  it("fails in every listed check", () => {
    expect([...listed].filter((check) => !failed.has(check))).toEqual([]);
  });
});
