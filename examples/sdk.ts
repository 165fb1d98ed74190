/** The bare MCP SDK: variables stay between calls, and a plot comes back as an image. */
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema } from "@modelcontextprotocol/sdk/types.js";

const { SANDBOX_MCP_URL = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN } = process.env;

const client = new Client({ name: "sdk-example", version: "1.0.0" });
const headers = { Authorization: `Bearer ${SANDBOX_MCP_TOKEN}` };
await client.connect(
  new StreamableHTTPClientTransport(new URL(SANDBOX_MCP_URL), { requestInit: { headers } }),
);

async function runCode(code: string) {
  const result = await client.callTool({ name: "run_code", arguments: { code, sandbox: "sdk-example" } });
  return CallToolResultSchema.parse(result).content;
}

await runCode("import matplotlib.pyplot as plt\nsquares = [n * n for n in range(10)]");
for (const block of await runCode("plt.plot(squares)\nplt.show()\nsum(squares)")) {
  if (block.type === "text") console.log(block.text);
  if (block.type === "image") {
    const file = join(await mkdtemp(join(tmpdir(), "sdk-example-")), "squares.png");
    await writeFile(file, block.data, "base64");
    console.log(`The plot is in ${file}.`);
  }
}
await client.close();
