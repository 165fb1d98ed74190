/**
 * deepagents: an agent that works in a sandbox. Pass the task as the argument. In your own project, import from
 * "sandbox-mcp/deepagents".
 */
import { ChatOpenAI } from "@langchain/openai";
import { createDeepAgent } from "deepagents";
import { tool } from "langchain";
import { z } from "zod";
import { deepAgentsBackend } from "../client/adapters/deepagents.ts";
import { connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;
const { MODEL = "gpt-5" } = process.env;
const task = process.argv[2] ?? "Serve a page with the primes below 100 on port 8000, and give me its URL.";

const server = connect({ url, token });
const sandbox = server.sandbox("deepagents-example");
// A backend of deepagents has no ports, so the program gives its agent a tool for them.
const expose = tool(async ({ port }) => (await sandbox.expose(port)).url, {
  name: "expose",
  description: "Gives a web server in the sandbox a URL",
  schema: z.object({ port: z.number() }),
});
const agent = createDeepAgent({
  model: new ChatOpenAI({ model: MODEL }),
  backend: deepAgentsBackend(sandbox),
  tools: [expose],
});
const { messages } = await agent.invoke({ messages: [{ role: "user", content: task }] });
console.log(messages.at(-1)?.text);
await server.close();
