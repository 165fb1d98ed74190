/**
 * The coding agents for tasks: how to start each one, and how to read its output. A new agent needs a row in `AGENTS`.
 * All use the model's API (`src/container/model-egress.ts`).
 */
import type { AgentReport, EventReader } from "./agent-report.ts";
import { ClaudeEvents } from "./claude-code.ts";
import { OpenCodeEvents } from "./opencode.ts";
import type { AGENT_NAMES } from "../shared/names.ts";

export type AgentName = (typeof AGENT_NAMES)[number];

export const DEFAULT_AGENT: AgentName = "claude-code";

interface AgentOptions {
  model?: string;
  maxTurns?: number;
  /** The agent's id of a conversation to continue. */
  conversation?: string;
}

export interface Agent {
  name: AgentName;
  title: string;
  /** How the operator adds the program to the image. */
  image: string;
  /** How the operator installs the program on the local platform. */
  install: string;
  /** The agent's program and arguments. The program reads the task from standard input. */
  command(options: AgentOptions): string[];
  /** The program's variables. `key` is a placeholder for the model's credential, `conversation` the conversation's id. */
  env(key: string, conversation: string, options: AgentOptions): Record<string, string>;
  /** The directory of conversations, below the home directory. Each file's path contains the conversation's id. */
  conversations: string;
  limitsTurns: boolean;
  /** Whether the agent supports definitions in Claude Code's format (`components.ts`). */
  findsComponents: boolean;
  /** Whether requests may use CLAUDE_CODE_OAUTH_TOKEN instead of ANTHROPIC_API_KEY. */
  takesToken: boolean;
  reader(directory: string, conversation: string, report?: AgentReport): EventReader;
}

const CLAUDE_CODE: Agent = {
  name: "claude-code",
  title: "Claude Code",
  image: "deploy the image of this project's Dockerfile",
  install: "have npm start -- --agents install it",
  command({ model, maxTurns, conversation }) {
    return [
      ..."claude -p --output-format stream-json --verbose --permission-mode bypassPermissions".split(" "),
      ...(maxTurns === undefined ? [] : ["--max-turns", String(maxTurns)]),
      ...(model === undefined ? [] : ["--model", model]),
      ...(conversation === undefined ? [] : ["--resume", conversation]),
    ];
  },
  env: (key) => ({
    ANTHROPIC_BASE_URL: "http://anthropic.internal",
    ANTHROPIC_API_KEY: key,
    // Without this variable, the agent refuses to skip permission prompts as root.
    IS_SANDBOX: "1",
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    DISABLE_AUTOUPDATER: "1",
  }),
  conversations: "/.claude/projects",
  limitsTurns: true,
  findsComponents: true,
  takesToken: true,
  reader: (directory, _conversation, report) => new ClaudeEvents(directory, report),
};

/** By default, OpenCode has one database for all conversations. Here each has its own, with a known name. */
const OPENCODE: Agent = {
  name: "opencode",
  title: "OpenCode",
  image: 'set "image_vars": { "OPENCODE": "yes" } beside "image" in wrangler.jsonc and deploy again',
  install: "run npm install --no-save opencode-ai@1.18.33",
  command({ model, conversation }) {
    return [
      ..."opencode run --format json".split(" "),
      ...(model === undefined ? [] : ["--model", `anthropic/${openCodeModel(model)}`]),
      ...(conversation === undefined ? [] : ["--continue"]),
    ];
  },
  env: (key, conversation, { model }) => ({
    ANTHROPIC_API_KEY: key,
    OPENCODE_DB: `${conversation}.db`,
    OPENCODE_CONFIG_CONTENT: JSON.stringify({
      autoupdate: false,
      share: "disabled",
      permission: "allow",
      enabled_providers: ["anthropic"],
      provider: {
        anthropic: {
          options: { baseURL: "http://anthropic.internal/v1" },
          // OpenCode refuses models that are not in its own list, so the model is added.
          models: model === undefined ? {} : { [openCodeModel(model)]: {} },
        },
      },
    }),
    OPENCODE_DISABLE_AUTOUPDATE: "1",
    OPENCODE_DISABLE_MODELS_FETCH: "1",
    OPENCODE_DISABLE_LSP_DOWNLOAD: "1",
  }),
  conversations: "/.local/share/opencode",
  limitsTurns: false,
  findsComponents: false,
  takesToken: false,
  reader: (directory, conversation, report) => new OpenCodeEvents(directory, conversation, report),
};

function openCodeModel(model: string): string {
  return model.replace(/^anthropic\//, "");
}

export const AGENTS: Record<AgentName, Agent> = { "claude-code": CLAUDE_CODE, opencode: OPENCODE };
