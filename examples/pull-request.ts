/**
 * A pull request's job: runs its test in a sandbox, hands it to the coding agent where it fails, and leaves the fix as a patch.
 *   node pull-request.ts 17 https://github.com/owner/project my-branch 'npm ci && npm test'
 */
import { writeFile } from "node:fs/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { z } from "zod";

const { SANDBOX_MCP_URL = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN } = process.env;
const [pullRequest = "0", repository = "", branch = "main", test = "npm test"] = process.argv.slice(2);

const client = new Client({ name: "pull-request-example", version: "1.0.0" });
const headers = { Authorization: `Bearer ${SANDBOX_MCP_TOKEN}` };
// Programs ask for results as data.
const url = new URL(`${SANDBOX_MCP_URL}?results=structured&sandbox=pr-${pullRequest}`);
await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }));

const runSchema = z.object({
  id: z.string(),
  state: z.string(),
  stdout: z.string().optional(),
  stderr: z.string().optional(),
  answer: z.string().optional(),
  note: z.string().optional(),
  diff: z.string().optional(),
});

/** Starts a run and waits for its end. A call answers within 45 seconds; a longer run goes on, and is asked for by its id. */
async function run(name: string, args: Record<string, unknown>) {
  const call = async (tool: string, more: Record<string, unknown>) =>
    runSchema.parse((await client.callTool({ name: tool, arguments: more })).structuredContent);
  let result = await call(name, { timeout_seconds: 1800, ...args });
  while (result.state === "running") result = await call("get_result", { id: result.id });
  return result;
}

const quoted = [branch, repository].map((word) => `'${word.replaceAll("'", "")}'`);
const cloned = await run("run_command", { command: `git clone -q --depth 1 --branch ${quoted.join(" ")} .` });
if (cloned.state !== "succeeded") throw new Error(cloned.stderr);

const tried = await run("run_command", { command: test });
if (tried.state === "succeeded") console.log("The test passes.");
else {
  const task = `\`${test}\` fails:\n\n${tried.stdout}\n${tried.stderr}\n\nMend the code, not the test.`;
  const mended = await run("execute_task", { task, sandbox: `pr-${pullRequest}` });
  console.log(mended.answer ?? mended.note);
  await writeFile("fix.patch", mended.diff ?? "");
  const again = await run("run_command", { command: test });
  console.log(`With fix.patch the test ${again.state === "succeeded" ? "passes" : "still fails"}.`);
  process.exitCode = 1;
}
await client.callTool({ name: "destroy_sandbox", arguments: {} });
await client.close();
