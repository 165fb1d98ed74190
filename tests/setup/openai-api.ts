/** OpenAI's Chat Completions on loopback, with a model that runs each prompt as Python and replies with the output. */
import { json } from "node:stream/consumers";
import { serve } from "./serve.ts";

interface Message {
  role: string;
  content?: string | { text?: string }[] | null;
}

const textOf = ({ content }: Message): string =>
  typeof content === "string" ? content : (content ?? []).map(({ text }) => text ?? "").join("\n");

export interface ScriptedCall {
  name: string;
  arguments: Record<string, unknown>;
}

/** The reply to a conversation. @param script the model's calls in order; one call of `run_code` by default */
function reply(messages: readonly Message[], script?: readonly ScriptedCall[]) {
  const last = messages.at(-1) ?? { role: "user" };
  const next = script?.[messages.filter(({ role }) => role === "tool").length];
  if (next) return callTool({ name: next.name, arguments: JSON.stringify(next.arguments) });
  const outputs = messages.filter(({ role }) => role === "tool").map(textOf);
  if (last.role === "tool") return { role: "assistant", content: `It says: ${outputs.join("\n")}` };
  return callTool({ name: "run_code", arguments: JSON.stringify({ code: textOf(last) }) });
}

function callTool(call: { name: string; arguments: string }) {
  const tool_calls = [{ id: crypto.randomUUID(), type: "function", function: call }];
  return { role: "assistant", content: null, tool_calls };
}

/** Serves the API until the time that `doLater` chooses. Returns the address for OPENAI_BASE_URL. */
export function startOpenAIAPI(script?: readonly ScriptedCall[]): Promise<string> {
  return serve(async (request, response) => {
    const { messages, model } = (await json(request)) as { messages: Message[]; model: string };
    const message = reply(messages, script);
    const finish_reason = "tool_calls" in message ? "tool_calls" : "stop";
    const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
    const choices = [{ index: 0, message, finish_reason, logprobs: null }];
    const completion = {
      id: crypto.randomUUID(),
      object: "chat.completion",
      created: 1,
      model,
      choices,
      usage,
    };
    response.setHeader("content-type", "application/json").end(JSON.stringify(completion));
  }, "/v1");
}
