/** What the lines of a coding agent report, and what reads them. */
import { z } from "zod";
import { tokens } from "../runs/task-detail.ts";

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

/** Reads one agent's events. */
export interface EventReader {
  readonly report: AgentReport;
  /** Takes one event and answers lines for a person to read. */
  read(event: Record<string, unknown>): string[];
}
