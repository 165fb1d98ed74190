/**
 * A nightly job: adds today's numbers to a history that stays in the sandbox, and prints a report, which cron mails.
 *   node nightly.ts 12.5 13.1 12.9
 */
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema } from "@modelcontextprotocol/sdk/types.js";

const { SANDBOX_MCP_URL = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN } = process.env;

const client = new Client({ name: "nightly-example", version: "1.0.0" });
const headers = { Authorization: `Bearer ${SANDBOX_MCP_TOKEN}` };
await client.connect(
  new StreamableHTTPClientTransport(new URL(SANDBOX_MCP_URL), { requestInit: { headers } }),
);

/** The answer's text. @throws Error when the tool says that it failed, so that cron reports it */
async function call(name: string, args: Record<string, unknown>): Promise<string> {
  const result = await client.callTool({ name, arguments: { sandbox: "nightly", ...args } });
  const { content, isError } = CallToolResultSchema.parse(result);
  const text = content.map((block) => (block.type === "text" ? block.text : "")).join("\n");
  if (isError) throw new Error(text);
  return text;
}

const day = new Date().toISOString().slice(0, 10);
const lines = process.argv.slice(2).map((value) => `${day},${value}\n`);
// Files below /workspace are there tomorrow, variables are not: the container has stopped by then.
await call("write_file", { path: "history.csv", content: lines.join(""), append: true });
await call("run_code", {
  code: `
import pandas
history = pandas.read_csv("history.csv", names=["day", "value"])
report = history.groupby("day").value.agg(["count", "mean", "max"])
open("report.txt", "w").write(report.to_string())`,
});
console.log(await call("read_file", { path: "report.txt" }));
await client.close();
