import * as z from "zod";
import { tokens } from "../runs/task-detail.ts";

/** The facts that an agent has reported so far. They are plain data, because the run's record stores them. */
export const agentReport = z.object({
  conversation: z.string().optional(),
  model: z.string().optional(),
  answer: z.string().optional(),
  end: z.enum(["done", "out_of_turns", "error"]).optional(),
  error: z.string().optional(),
  turns: z.number().optional(),
  tokens: tokens.optional(),
  costUSD: z.number().optional(),
  durationMs: z.number().optional(),
  /** How many lines of output were not events. */
  unread: z.number(),
  /** The first line that was not an event. */
  unreadSample: z.string().optional(),
});

export type AgentReport = z.infer<typeof agentReport>;

export interface EventReader {
  readonly report: AgentReport;
  /** Returns the lines that the run's log shows. */
  read(event: Record<string, unknown>): string[];
}
