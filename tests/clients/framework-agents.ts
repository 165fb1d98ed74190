/** Agents of frameworks that use a sandbox of the server by the adapters of the client library. */
import { createOpenAI } from "@ai-sdk/openai";
import { ChatOpenAI } from "@langchain/openai";
import { Runner, tool as openAITool } from "@openai/agents-core";
import { type ManifestInit, SandboxAgent, type SandboxClient } from "@openai/agents-core/sandbox";
import { OpenAIProvider } from "@openai/agents-openai";
import { generateText, isStepCount, tool } from "ai";
import { compute } from "computesdk";
import { createDeepAgent } from "deepagents";
import { tool as langchainTool } from "langchain";
import { z } from "zod";
import { aiSandbox } from "../../client/adapters/ai-sdk.ts";
import { sandboxMCP } from "../../client/adapters/computesdk.ts";
import { deepAgentsBackend } from "../../client/adapters/deepagents.ts";
import type { ConnectOptions, Sandbox } from "../../client/index.ts";

const MODEL = "gpt-5";

/** The frameworks' sandboxes have no ports: a program gives its agent a tool for that, with the library. */
const PORT = z.object({ port: z.number() });

/** What an agent of deepagents says at last. */
export async function runDeepAgent(sandbox: Sandbox, baseURL: string, prompt: string): Promise<string> {
  const model = new ChatOpenAI({ model: MODEL, apiKey: "any", configuration: { baseURL } });
  const expose = langchainTool(async ({ port }) => (await sandbox.expose(port)).url, {
    name: "expose",
    description: "Gives a port a URL",
    schema: PORT,
  });
  const agent = createDeepAgent({ model, backend: deepAgentsBackend(sandbox), tools: [expose] });
  const { messages } = await agent.invoke({ messages: [{ role: "user", content: prompt }] });
  return String(messages.at(-1)?.text);
}

/** What an agent of the AI SDK says at last. Its tools are the program's own, and get the sandbox from the SDK. */
export async function runAISDKAgent(sandbox: Sandbox, baseURL: string, prompt: string): Promise<string> {
  const { text } = await generateText({
    model: createOpenAI({ baseURL, apiKey: "any" }).chat(MODEL),
    experimental_sandbox: aiSandbox(sandbox),
    tools: {
      execute: tool({
        inputSchema: z.object({ command: z.string() }),
        execute: ({ command }, { experimental_sandbox }) => experimental_sandbox?.run({ command }),
      }),
      expose: tool({ inputSchema: PORT, execute: async ({ port }) => (await sandbox.expose(port)).url }),
      write_file: tool({
        inputSchema: z.object({ file_path: z.string(), content: z.string() }),
        execute: ({ file_path: path, content }, { experimental_sandbox }) =>
          experimental_sandbox?.writeTextFile({ path, content }),
      }),
      read_file: tool({
        inputSchema: z.object({ file_path: z.string() }),
        execute: ({ file_path: path }, { experimental_sandbox }) =>
          experimental_sandbox?.readTextFile({ path, startLine: 2 }),
      }),
    },
    prompt,
    stopWhen: isStepCount(10),
  });
  return text;
}

/** What a sandbox agent of OpenAI's Agents SDK says at last. Its tools are the SDK's: exec_command, write_stdin, apply_patch. */
export async function runOpenAIAgent(
  exposed: Sandbox,
  sandbox: { client: SandboxClient; manifest: ManifestInit },
  baseURL: string,
  prompt: string,
): Promise<string> {
  const modelProvider = new OpenAIProvider({ baseURL, apiKey: "any", useResponses: false });
  const runner = new Runner({ modelProvider, tracingDisabled: true });
  const expose = openAITool({
    name: "expose",
    description: "Gives a port a URL",
    parameters: PORT,
    execute: async ({ port }) => (await exposed.expose(port)).url,
  });
  const agent = new SandboxAgent({ name: "agent", model: MODEL, tools: [expose] });
  return String((await runner.run(agent, prompt, { sandbox })).finalOutput);
}

/** ComputeSDK with the server as its provider. */
export function computeOf(options: ConnectOptions): ReturnType<typeof compute> {
  return compute({ provider: sandboxMCP(options) });
}
