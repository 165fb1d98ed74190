/**
 * A chat's backend: each conversation has its own sandbox, and none can see another's files or variables.
 * In your own project, import from "sandbox-mcp/client".
 *   curl -d '{"conversation": "a1", "message": "How many primes are there below 10,000?"}' http://127.0.0.1:3000/chat
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import { openai } from "@ai-sdk/openai";
import { generateText, isStepCount, type ModelMessage, tool } from "ai";
import { z } from "zod";
import { connect } from "../client/index.ts";

const {
  SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp",
  SANDBOX_MCP_TOKEN: token = "",
  MODEL = "gpt-5",
  PORT = "3000",
} = process.env;

/** A backend with users must take the conversation's id from the user's session, never from the request. */
const requestSchema = z.object({ conversation: z.string().regex(/^[a-z0-9]{1,15}$/), message: z.string() });

const sandboxes = connect({ url, token });
const conversations = new Map<string, ModelMessage[]>();

async function reply(conversation: string, message: string): Promise<string> {
  const sandbox = sandboxes.sandbox(`chat-${conversation}`);
  // The tool has no parameter for the sandbox, so the model cannot reach the sandbox of another conversation.
  const run_code = tool({
    description: "Runs Python in a live kernel. Variables and files stay for later calls.",
    inputSchema: z.object({ code: z.string() }),
    async execute({ code }) {
      const { stdout, result, error } = await sandbox.runCode(code, { maxOutput: 20_000 });
      return { stdout, result, error: error?.traceback.join("\n") };
    },
  });
  const messages: ModelMessage[] = [
    ...(conversations.get(conversation) ?? []),
    { role: "user", content: message },
  ];
  const { text, responseMessages } = await generateText({
    model: openai.chat(MODEL),
    tools: { run_code },
    messages,
    stopWhen: isStepCount(20),
  });
  conversations.set(conversation, [...messages, ...responseMessages]);
  return text;
}

const server = createServer(async (request, response) => {
  try {
    const { conversation, message } = requestSchema.parse(await json(request));
    response.end(`${await reply(conversation, message)}\n`);
  } catch (error) {
    response.writeHead(error instanceof z.ZodError ? 400 : 500).end(`${String(error)}\n`);
  }
});
server.listen(Number(PORT), "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  console.log(`Listening for POST /chat on port ${port}.`);
});
