/**
 * The coding agents that can do a task: how each is started in a sandbox, and how the lines it prints are read. A new
 * agent needs a row in `AGENTS`, and one in `EGRESS` (`src/container/egress.ts`) for its model.
 */
import { z } from "zod";
import { ClaudeEvents } from "./claude-code.ts";
import { tokens } from "../runs/task-detail.ts";

export const AGENT_NAMES = ["claude-code"] as const;

export type AgentName = (typeof AGENT_NAMES)[number];

export const DEFAULT_AGENT: AgentName = "claude-code";

export interface AgentOptions {
  model?: string;
  maxTurns?: number;
  /** The agent's own id of the conversation that goes on. */
  conversation?: string;
}

/** What the lines of an agent have reported so far. Plain data, because it is part of the run's record. */
export const agentReport = z.object({
  /** The agent's own id of its conversation. */
  conversation: z.string().optional(),
  model: z.string().optional(),
  answer: z.string().optional(),
  /** Set once the agent has said how it ended. */
  end: z.enum(["done", "out_of_turns", "error"]).optional(),
  /** The agent's message for an end with `error`. */
  error: z.string().optional(),
  turns: z.number().optional(),
  tokens: tokens.optional(),
  costUSD: z.number().optional(),
  durationMs: z.number().optional(),
  /** The number of lines that were no event, and the first of them. */
  unread: z.number(),
  unreadSample: z.string().optional(),
});

export type AgentReport = z.infer<typeof agentReport>;

/** Reads one agent's lines. */
export interface EventReader {
  readonly report: AgentReport;
  /** Takes one line and answers lines for a person to read. */
  read(line: string): string[];
}

export interface Agent {
  name: AgentName;
  /** Its name for people. */
  title: string;
  /** Its program and arguments. The task comes on standard input. */
  command(options: AgentOptions): string[];
  /** Its variables. `key` is the task's placeholder for a credential. */
  env(key: string): Record<string, string>;
  /** Where it keeps conversations, below the home directory: a conversation's files have its id in their path. */
  conversations: string;
  /** A reader that continues from the report of an earlier one. */
  reader(directory: string, report?: AgentReport): EventReader;
}

const CLAUDE_CODE: Agent = {
  name: "claude-code",
  title: "Claude Code",
  command({ model, maxTurns, conversation }) {
    return [
      "claude",
      "-p",
      "--output-format",
      "stream-json",
      "--verbose",
      "--permission-mode",
      "bypassPermissions",
      ...(maxTurns === undefined ? [] : ["--max-turns", String(maxTurns)]),
      ...(model === undefined ? [] : ["--model", model]),
      ...(conversation === undefined ? [] : ["--resume", conversation]),
    ];
  },
  env: (key) => ({
    ANTHROPIC_BASE_URL: "http://anthropic.internal",
    ANTHROPIC_API_KEY: key,
    // Without it the agent refuses to skip permission prompts as root.
    IS_SANDBOX: "1",
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    DISABLE_AUTOUPDATER: "1",
  }),
  conversations: "/.claude/projects",
  reader: (directory, report) => new ClaudeEvents(directory, report),
};

export const AGENTS: Record<AgentName, Agent> = { "claude-code": CLAUDE_CODE };
