/**
 * OpenAI's Agents SDK: a sandbox agent, with the SDK's own tools. Pass the task as the argument. In your own project, import from
 * "sandbox-mcp/openai-agents".
 */
import { Runner, type Tool, tool } from "@openai/agents-core";
import { Capabilities, Capability, SandboxAgent } from "@openai/agents-core/sandbox";
import { OpenAIProvider } from "@openai/agents-openai";
import { z } from "zod";
import { openAISandboxes } from "../client/adapters/openai-agents.ts";
import { connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;
const { MODEL = "gpt-5" } = process.env;
const task = process.argv[2] ?? "Serve a page with the sum of numbers.txt on port 8000, and give me its URL.";

/** A tool for the ports of the agent's sandbox. The SDK gives the sandbox to its capabilities. */
class Ports extends Capability {
  readonly type = "ports";

  override tools(): Tool[] {
    const { _session: session } = this;
    const expose = tool({
      name: "expose",
      description: "Gives a web server in the sandbox a URL",
      parameters: z.object({ port: z.number() }),
      execute: async ({ port }) => (await session?.resolveExposedPort?.(port))?.url,
    });
    return [expose];
  }
}

const server = connect({ url, token });
const agent = new SandboxAgent({
  name: "Builder",
  model: MODEL,
  capabilities: [...Capabilities.default(), new Ports()],
});
const runner = new Runner({
  modelProvider: new OpenAIProvider({ useResponses: false }),
  tracingDisabled: true,
});
const manifest = {
  entries: { "numbers.txt": { type: "file", content: "40\n2\n" } },
  environment: { PORT: "8000" },
} as const;
const sandbox = { client: openAISandboxes(server, { name: "openai-sandbox-example" }), manifest };
console.log((await runner.run(agent, task, { sandbox })).finalOutput);
await server.close();
