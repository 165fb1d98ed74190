/**
 * Real MCP clients with their default time limits. In agents, a scripted model makes the calls; plain clients make
 * the same calls directly.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createMCPClient } from "@ai-sdk/mcp";
import { BaseChatModel } from "@langchain/core/language_models/chat_models";
import { AIMessage, type BaseMessage } from "@langchain/core/messages";
import { MultiServerMCPClient } from "@langchain/mcp-adapters";
import { MCPClient } from "@mastra/mcp";
import {
  Client as NewClient,
  StreamableHTTPClientTransport as NewTransport,
} from "@modelcontextprotocol/client";
import { runFile } from "../../local/engine/host-programs.ts";
import { Client, StreamableHTTPClientTransport } from "./sdk1.ts";
import {
  Agent,
  MCPServerStreamableHttp,
  type Model,
  type ModelRequest,
  Runner,
  Usage,
} from "@openai/agents-core";
import { createAgent } from "langchain";
import { runClaudeCode } from "../setup/claude-code.ts";
import { startMessagesAPI, textReply, toolResults } from "../setup/messages-api.ts";
import { repository } from "../setup/server.ts";

interface Endpoint {
  url: string;
  token: string;
}

interface ToolCall {
  name: string;
  args: Record<string, unknown>;
}

/** Returns the next call, or undefined to end. Gets the result of the previous call, which is undefined at first. */
export type Script = (answer: string | undefined) => ToolCall | undefined;

/** Follows the script with a client that has no model. */
async function play(script: Script, call: (next: ToolCall) => Promise<unknown>): Promise<void> {
  let answer: string | undefined;
  for (let next = script(undefined); next; next = script(answer)) answer = textIn(await call(next));
}

/** All texts in a result, in any client's format. */
function textIn(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value !== "object" || value === null) return "";
  return Object.values(value).map(textIn).filter(Boolean).join("\n");
}

const headersOf = ({ token }: Endpoint) => ({ authorization: `Bearer ${token}` });
const info = { name: "long-command", version: "1" };

async function sdk1(endpoint: Endpoint, script: Script): Promise<void> {
  const client = new Client(info);
  const requestInit = { headers: headersOf(endpoint) };
  await client.connect(new StreamableHTTPClientTransport(new URL(endpoint.url), { requestInit }));
  await play(script, ({ name, args }) => client.callTool({ name, arguments: args }));
  await client.close();
}

function sdk2(mode: "legacy" | { pin: string }) {
  return async (endpoint: Endpoint, script: Script): Promise<void> => {
    const client = new NewClient(info, { versionNegotiation: { mode } });
    const requestInit = { headers: headersOf(endpoint) };
    await client.connect(new NewTransport(new URL(endpoint.url), { requestInit }));
    await play(script, ({ name, args }) => client.callTool({ name, arguments: args }));
    await client.close();
  };
}

async function inspector({ url, token }: Endpoint, script: Script): Promise<void> {
  const home = mkdtempSync(join(tmpdir(), "sandbox-mcp-inspector-"));
  const program = join(repository, "tests/clients/node_modules/.bin/mcp-inspector");
  const flags = ["--cli", url, "--transport", "http", "--header", `Authorization: Bearer ${token}`];
  await play(script, async ({ name, args }) => {
    const toolArguments = Object.entries(args).flatMap(([field, value]) => [
      "--tool-arg",
      `${field}=${String(value)}`,
    ]);
    const call = ["--method", "tools/call", "--tool-name", name, ...toolArguments];
    const { stdout } = await runFile(program, [...flags, ...call], {
      env: { ...process.env, HOME: home },
      cwd: home,
    });
    return JSON.parse(stdout);
  });
  rmSync(home, { recursive: true, force: true });
}

/** A LangChain chat model. */
class ScriptedChatModel extends BaseChatModel {
  readonly script: Script;

  constructor(script: Script) {
    super({});
    this.script = script;
  }

  override _llmType(): string {
    return "scripted";
  }

  override bindTools(): this {
    return this;
  }

  override async _generate(messages: BaseMessage[]) {
    const last = messages.at(-1);
    const next = this.script(last?.getType() === "tool" ? textIn(last.content) : undefined);
    const calls = next ? [{ id: `call-${messages.length}`, name: next.name, args: next.args }] : [];
    const message = new AIMessage({ content: next ? "" : "done", tool_calls: calls });
    return { generations: [{ text: "", message }] };
  }
}

async function langChain(endpoint: Endpoint, script: Script): Promise<void> {
  const connection = { transport: "http" as const, url: endpoint.url, headers: headersOf(endpoint) };
  const client = new MultiServerMCPClient({ mcpServers: { sandbox: connection } });
  const agent = createAgent({ model: new ScriptedChatModel(script), tools: await client.getTools() });
  await agent.invoke({ messages: [{ role: "user", content: "run it" }] });
  await client.close();
}

async function openAIAgents(endpoint: Endpoint, script: Script): Promise<void> {
  const server = new MCPServerStreamableHttp({
    url: endpoint.url,
    requestInit: { headers: headersOf(endpoint) },
    // Limits connecting and listing: the default of 5 s is too short on a busy machine. Calls keep their default
    // limit.
    clientSessionTimeoutSeconds: 60,
  });
  const model: Model = {
    async getResponse({ input }: ModelRequest) {
      const last = typeof input === "string" ? undefined : input.at(-1);
      const next = script(last?.type === "function_call_result" ? textIn(last.output) : undefined);
      const id = `${input.length}`;
      const reply = { type: "output_text" as const, text: "done" };
      return {
        usage: new Usage(),
        output: [
          next
            ? { type: "function_call", callId: id, name: next.name, arguments: JSON.stringify(next.args) }
            : { type: "message", role: "assistant", status: "completed", content: [reply] },
        ],
      };
    },
    getStreamedResponse() {
      throw new Error("no run here is streamed");
    },
  };
  await server.connect();
  const runner = new Runner({ tracingDisabled: true });
  await runner.run(new Agent({ name: "agent", model, mcpServers: [server] }), "run it");
  await server.close();
}

async function mastra(endpoint: Endpoint, script: Script): Promise<void> {
  const requestInit = { headers: headersOf(endpoint) };
  const client = new MCPClient({
    id: crypto.randomUUID(),
    // After 3 seconds, Mastra would go on without any tools.
    servers: { sandbox: { url: new URL(endpoint.url), requestInit, connectTimeout: 60_000 } },
  });
  const tools = await client.listTools();
  await play(script, ({ name, args }) => {
    const tool = tools[`sandbox_${name}`];
    if (!tool?.execute) throw new Error(`Mastra has no tool ${name}: ${Object.keys(tools).join(", ")}`);
    return tool.execute(args, {} as never);
  });
  await client.disconnect();
}

async function aiSDK(endpoint: Endpoint, script: Script): Promise<void> {
  const client = await createMCPClient({
    transport: { type: "http", url: endpoint.url, headers: headersOf(endpoint) },
  });
  const tools = await client.tools();
  await play(script, async ({ name, args }) => {
    const tool = tools[name];
    if (!tool) throw new Error(`The AI SDK has no tool ${name}: ${Object.keys(tools).join(", ")}`);
    return await tool.execute(args, { toolCallId: name, messages: [], context: {} });
  });
  await client.close();
}

async function claude(endpoint: Endpoint, script: Script): Promise<void> {
  const home = mkdtempSync(join(tmpdir(), "sandbox-mcp-claude-"));
  const api = await startMessagesAPI((request) => {
    const results = toolResults(request);
    const next = script(results.length > 0 ? textIn(results) : undefined);
    if (!next) return textReply("done");
    return { blocks: [{ type: "tool_use", name: `mcp__sandbox__${next.name}`, input: next.args }] };
  });
  const config = join(home, "mcp.json");
  const connection = { type: "http", url: endpoint.url, headers: headersOf(endpoint) };
  writeFileSync(config, JSON.stringify({ mcpServers: { sandbox: connection } }));
  const flags = ["--mcp-config", config, "--strict-mcp-config", "--allowedTools", "mcp__sandbox"];
  await runClaudeCode(home, ["-p", "run it", ...flags], api.url);
  await api.close();
  rmSync(home, { recursive: true, force: true });
}

/** Each function follows a script to its end. It throws if the client gives up on a call, or the agent on a run. */
export const AGENT_CLIENTS: Record<string, (endpoint: Endpoint, script: Script) => Promise<void>> = {
  "the Inspector's command line": inspector,
  "the SDK 1.x": sdk1,
  "the SDK 2.x in the 2025 era": sdk2("legacy"),
  "the SDK 2.x in the 2026-07-28 era": sdk2({ pin: "2026-07-28" }),
  LangChain: langChain,
  "the OpenAI Agents SDK": openAIAgents,
  Mastra: mastra,
  "Vercel's AI SDK": aiSDK,
  "Claude Code": claude,
};
