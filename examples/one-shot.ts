/** One program, one fresh sandbox: what it leaves is gone afterwards, whatever becomes of it. The program is on stdin. */
import { randomUUID } from "node:crypto";
import { text } from "node:stream/consumers";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema } from "@modelcontextprotocol/sdk/types.js";

const { SANDBOX_MCP_URL = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN } = process.env;

const client = new Client({ name: "one-shot-example", version: "1.0.0" });
const headers = { Authorization: `Bearer ${SANDBOX_MCP_TOKEN}` };
// Programs ask for results as data.
const url = new URL(`${SANDBOX_MCP_URL}?results=structured`);
await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }));

const sandbox = `once-${randomUUID().slice(0, 8)}`;
/** @throws Error when the tool says that it failed: a program must not run where the network could not be taken away */
async function call(name: string, args: Record<string, unknown>) {
  const result = CallToolResultSchema.parse(await client.callTool({ name, arguments: { sandbox, ...args } }));
  if (result.isError) throw new Error(JSON.stringify(result.content));
  return result;
}

try {
  // What is not trusted has no network.
  await call("configure_sandbox", { internet: "none" });
  const code = await text(process.stdin);
  const { content, structuredContent } = await call("run_code", { code, timeout_seconds: 30 });
  for (const block of content) if (block.type === "text") console.log(block.text);
  if (structuredContent?.state !== "succeeded") process.exitCode = 1;
} finally {
  await call("destroy_sandbox", {});
  await client.close();
}
