/** LangChain: an agent with the sandbox's tools. Pass the question as the argument. */
import { MultiServerMCPClient } from "@langchain/mcp-adapters";
import { ChatOpenAI } from "@langchain/openai";
import { createAgent } from "langchain";

const { SANDBOX_MCP_URL = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN, MODEL = "gpt-5" } = process.env;
const question = process.argv[2] ?? "How many primes are there below 10,000? Compute it.";

const client = new MultiServerMCPClient({
  mcpServers: {
    sandbox: {
      transport: "http",
      // The code tools alone: a short list costs the model fewer tokens.
      url: `${SANDBOX_MCP_URL}?tools=code&sandbox=langchain-example`,
      headers: { Authorization: `Bearer ${SANDBOX_MCP_TOKEN}` },
    },
  },
});
try {
  const agent = createAgent({ model: new ChatOpenAI({ model: MODEL }), tools: await client.getTools() });
  const { messages } = await agent.invoke({ messages: [{ role: "user", content: question }] });
  console.log(messages.at(-1)?.text);
} finally {
  await client.close();
}
