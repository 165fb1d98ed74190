/** The model's part for agents under test: what it does depends on the name in the task, as in "[[write]] Please ...". */
import {
  type Block,
  type MessagesAPI,
  type MessagesRequest,
  type Reply,
  type Spoken,
  startMessagesAPI,
} from "./messages-api.ts";

/** What the model does turn by turn; the last one for good. A function decides by itself. */
export type Scenario =
  | readonly Reply[]
  | ((request: MessagesRequest, turn: number) => Reply | Promise<Reply>);

/** Starts a Messages API that plays these scenarios. */
export function playScenarios(scenarios: Record<string, Scenario>): Promise<MessagesAPI> {
  return startMessagesAPI((request) => {
    // The newest task counts: a continued conversation contains the earlier one too.
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

/** The answer to a question. */
export function writeProgram(code: string, language = "python"): Spoken {
  return { blocks: [{ type: "tool_use", name: "write_program", input: { language, code } }] };
}

export function say(text: string): Reply {
  return { blocks: [{ type: "text", text }] };
}

export function bash(command: string): Reply {
  return use("Bash", { command, description: "runs it" });
}
