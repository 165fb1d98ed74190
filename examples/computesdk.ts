/**
 * ComputeSDK: the server as its provider. ComputeSDK has no agent, so an agent of the AI SDK uses it here. Pass the
 * task as the argument. In your own project, import from "sandbox-mcp/computesdk".
 */
import { openai } from "@ai-sdk/openai";
import { generateText, isStepCount, tool } from "ai";
import { compute } from "computesdk";
import { z } from "zod";
import { sandboxMCP } from "../client/adapters/computesdk.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;
const { MODEL = "gpt-5" } = process.env;
const task = process.argv[2] ?? "Serve a page with the primes below 100 on port 8000, and give me its URL.";

const provider = sandboxMCP({ url, token });
const sandbox = await compute({ provider }).sandbox.create({ name: "computesdk-example" });
const { text } = await generateText({
  model: openai.chat(MODEL),
  prompt: task,
  stopWhen: isStepCount(20),
  tools: {
    execute: tool({
      inputSchema: z.object({ command: z.string() }),
      execute: ({ command }) => sandbox.runCommand(command),
    }),
    write_file: tool({
      inputSchema: z.object({ file_path: z.string(), content: z.string() }),
      execute: ({ file_path, content }) => sandbox.filesystem.writeFile(file_path, content),
    }),
    read_file: tool({
      inputSchema: z.object({ file_path: z.string() }),
      execute: ({ file_path }) => sandbox.filesystem.readFile(file_path),
    }),
    expose: tool({
      inputSchema: z.object({ port: z.number() }),
      execute: ({ port }) => sandbox.getUrl({ port }),
    }),
  },
});
console.log(text);
