/**
 * The AI SDK: generateText with tools that use its sandbox session. Pass the task as the argument. In your own project, import from
 * "sandbox-mcp/ai-sdk".
 */
import { openai } from "@ai-sdk/openai";
import { generateText, isStepCount, tool } from "ai";
import { z } from "zod";
import { aiSandbox } from "../client/adapters/ai-sdk.ts";
import { connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;
const { MODEL = "gpt-5" } = process.env;
const task = process.argv[2] ?? "Serve a page with the primes below 100 on port 8000, and give me its URL.";

const server = connect({ url, token });
const session = aiSandbox(server.sandbox("ai-sdk-sandbox-example"), { ports: [8000] });
const { text } = await generateText({
  model: openai.chat(MODEL),
  prompt: task,
  system: session.description,
  stopWhen: isStepCount(20),
  experimental_sandbox: session,
  tools: {
    execute: tool({
      inputSchema: z.object({ command: z.string() }),
      execute: ({ command }, { experimental_sandbox: sandbox }) => sandbox?.run({ command }),
    }),
    write_file: tool({
      inputSchema: z.object({ file_path: z.string(), content: z.string() }),
      execute: ({ file_path: path, content }, { experimental_sandbox: sandbox }) =>
        sandbox?.writeTextFile({ path, content }),
    }),
    read_file: tool({
      inputSchema: z.object({ file_path: z.string() }),
      execute: ({ file_path: path }, { experimental_sandbox: sandbox }) => sandbox?.readTextFile({ path }),
    }),
    expose: tool({
      inputSchema: z.object({ port: z.number() }),
      // Uses `session`, because the type of `experimental_sandbox` has no ports.
      execute: ({ port }) => session.getPortEndpoint({ port }),
    }),
  },
});
console.log(text);
await server.close();
