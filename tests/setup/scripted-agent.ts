/** A scripted model for agents. The task's text selects a scenario, for example "[[write]] Please ...". */
import {
  type Block,
  type MessagesAPI,
  type MessagesRequest,
  type Reply,
  type BlocksReply,
  startMessagesAPI,
} from "./messages-api.ts";

/** The model's turns. The last one repeats. A function makes its reply from the request. */
export type Scenario =
  | readonly Reply[]
  | ((request: MessagesRequest, turn: number) => Reply | Promise<Reply>);

/** Starts a Messages API with these scenarios. */
export function playScenarios(scenarios: Record<string, Scenario>): Promise<MessagesAPI> {
  return startMessagesAPI((request) => {
    // The newest task counts, because a continued conversation also contains the earlier one.
    const userMessages = request.messages.filter(({ role }) => role === "user");
    const names = [...JSON.stringify(userMessages).matchAll(/\[\[([a-z-]+)\]\]/g)];
    const name = names.at(-1)?.[1] ?? "";
    const scenario = scenarios[name];
    if (scenario === undefined) throw new Error(`no scenario ${name}`);
    const start = request.messages.findLastIndex(
      (message) => message.role === "user" && JSON.stringify(message).includes(`[[${name}]]`),
    );
    const turn = request.messages.slice(start).filter(({ role }) => role === "assistant").length;
    if (typeof scenario === "function") return scenario(request, turn);
    const reply = scenario[Math.min(turn, scenario.length - 1)];
    if (reply === undefined) throw new Error(`the scenario ${name} is empty`);
    return reply;
  });
}

export function use(name: string, input: Record<string, unknown>, text?: string): Reply {
  const blocks: Block[] = [{ type: "tool_use", name, input }];
  return { blocks: text === undefined ? blocks : [{ type: "text", text }, ...blocks] };
}

/** The model's reply to a question. */
export function writeProgram(code: string, language = "python"): BlocksReply {
  return { blocks: [{ type: "tool_use", name: "write_program", input: { language, code } }] };
}

export function say(text: string): Reply {
  return { blocks: [{ type: "text", text }] };
}

export function bash(command: string): Reply {
  return use("Bash", { command, description: "runs it" });
}
