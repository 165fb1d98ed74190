/** Vercel's AI SDK: generateText with the tools of the sandbox. Pass the question as the argument. */
import { createMCPClient } from "@ai-sdk/mcp";
import { openai } from "@ai-sdk/openai";
import { generateText, isStepCount } from "ai";

const { SANDBOX_MCP_URL = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN, MODEL = "gpt-5" } = process.env;
const question = process.argv[2] ?? "How many primes are there below 10,000? Compute it.";

const client = await createMCPClient({
  transport: {
    type: "http",
    url: `${SANDBOX_MCP_URL}?tools=code&sandbox=ai-sdk-example`,
    headers: { Authorization: `Bearer ${SANDBOX_MCP_TOKEN}` },
  },
});
try {
  const { text } = await generateText({
    // Chat Completions, because other providers support it too.
    model: openai.chat(MODEL),
    tools: await client.tools(),
    stopWhen: isStepCount(20),
    prompt: question,
  });
  console.log(text);
} finally {
  await client.close();
}
