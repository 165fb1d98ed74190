/**
 * A chat's backend: each conversation has a sandbox of its own, so that none sees another's files or variables.
 *   curl -d '{"conversation": "a1", "message": "Plot x squared"}' http://127.0.0.1:3000/chat
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import { createMCPClient } from "@ai-sdk/mcp";
import { openai } from "@ai-sdk/openai";
import { generateText, isStepCount, type ModelMessage } from "ai";
import { z } from "zod";

const {
  SANDBOX_MCP_URL = "http://127.0.0.1:8787/mcp",
  SANDBOX_MCP_TOKEN,
  MODEL = "gpt-5",
  PORT = "3000",
} = process.env;

/** A backend with users takes the conversation's id from their session, never from the request. */
const requestSchema = z.object({ conversation: z.string().regex(/^[a-z0-9]{1,15}$/), message: z.string() });

const conversations = new Map<string, ModelMessage[]>();

async function answer(conversation: string, message: string): Promise<string> {
  const messages: ModelMessage[] = [
    ...(conversations.get(conversation) ?? []),
    { role: "user", content: message },
  ];
  // Calls that name no sandbox go to this one. Users who must not meet need a token each: a model can name another.
  const client = await createMCPClient({
    transport: {
      type: "http",
      url: `${SANDBOX_MCP_URL}?tools=code&sandbox=chat-${conversation}`,
      headers: { Authorization: `Bearer ${SANDBOX_MCP_TOKEN}` },
    },
  });
  try {
    const tools = await client.tools();
    const { text, responseMessages } = await generateText({
      model: openai.chat(MODEL),
      tools,
      messages,
      stopWhen: isStepCount(20),
    });
    conversations.set(conversation, [...messages, ...responseMessages]);
    return text;
  } finally {
    await client.close();
  }
}

const server = createServer(async (request, response) => {
  try {
    const { conversation, message } = requestSchema.parse(await json(request));
    response.end(`${await answer(conversation, message)}\n`);
  } catch (error) {
    response.writeHead(error instanceof z.ZodError ? 400 : 500).end(`${String(error)}\n`);
  }
});
server.listen(Number(PORT), "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  console.log(`POST /chat is answered on port ${port}.`);
});
