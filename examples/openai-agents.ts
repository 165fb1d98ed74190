/** OpenAI's Agents SDK: an agent with the sandbox as its MCP server. Pass the question as the argument. */
import { Agent, MCPServerStreamableHttp, Runner } from "@openai/agents-core";
import { OpenAIProvider } from "@openai/agents-openai";

const { SANDBOX_MCP_URL = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN, MODEL = "gpt-5" } = process.env;
const question = process.argv[2] ?? "How many primes are there below 10,000? Compute it.";

const sandbox = new MCPServerStreamableHttp({
  url: `${SANDBOX_MCP_URL}?tools=code&sandbox=agents-example`,
  requestInit: { headers: { Authorization: `Bearer ${SANDBOX_MCP_TOKEN}` } },
  // Seconds for connecting and listing; the default is 5. Calls have a limit of a minute, and each returns within 45 seconds.
  clientSessionTimeoutSeconds: 30,
});
await sandbox.connect();
try {
  const agent = new Agent({
    name: "Analyst",
    instructions: "Compute, do not guess.",
    model: MODEL,
    mcpServers: [sandbox],
  });
  // Chat Completions, because other providers support it too. The SDK's default is OpenAI's Responses API.
  const runner = new Runner({
    modelProvider: new OpenAIProvider({ useResponses: false }),
    tracingDisabled: true,
  });
  console.log((await runner.run(agent, question)).finalOutput);
} finally {
  await sandbox.close();
}
