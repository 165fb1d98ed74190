/**
 * A pull request's job: runs its test in a sandbox, hands it to the coding agent where it fails, and prints the fix as a patch.
 *   node pull-request.ts 17 https://github.com/owner/project my-branch 'npm ci && npm test' > fix.patch
 */
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

const { SANDBOX_MCP_URL = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN } = process.env;
const [pullRequest = "", repository = "", branch = "main", test = "npm test"] = process.argv.slice(2);
if (!/^\d+$/.test(pullRequest) || repository === "") {
  console.error("Usage: node pull-request.ts <number> <repository URL> [branch] [test command]");
  process.exit(64);
}

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

/** @throws Error when the tool says that it failed */
async function call(name: string, args: Record<string, unknown>) {
  const result = CallToolResultSchema.parse(await client.callTool({ name, arguments: args }));
  if (result.isError) throw new Error(JSON.stringify(result.content));
  return result.structuredContent;
}

/** Starts a run and waits for its end. A call answers within 45 seconds; a longer run goes on, and is asked for by its id. */
async function run(name: string, args: Record<string, unknown>) {
  let result = runSchema.parse(await call(name, { timeout_seconds: 1800, ...args }));
  while (result.state === "running") result = runSchema.parse(await call("get_result", { id: result.id }));
  return result;
}

try {
  const quoted = [branch, repository].map((word) => `'${word.replaceAll("'", "")}'`);
  // A job that was killed may have left its clone.
  const clone = `find . -mindepth 1 -delete && git clone -q --depth 1 --branch ${quoted.join(" ")} .`;
  const cloned = await run("run_command", { command: clone });
  if (cloned.state !== "succeeded") throw new Error(cloned.stderr);

  const tried = await run("run_command", { command: test });
  if (tried.state === "succeeded") console.error("The test passes.");
  else {
    const task = `\`${test}\` fails:\n\n${tried.stdout}\n${tried.stderr}\n\nMend the code, not the test.`;
    const mended = await run("execute_task", { task, sandbox: `pr-${pullRequest}` });
    console.error(mended.answer ?? mended.note);
    console.log(mended.diff ?? "");
    const again = await run("run_command", { command: test });
    console.error(`With the patch the test ${again.state === "succeeded" ? "passes" : "still fails"}.`);
    process.exitCode = 1;
  }
} finally {
  await call("destroy_sandbox", { sandbox: `pr-${pullRequest}` });
  await client.close();
}
