import * as z from "zod";
import { tokens } from "../runs/task-detail.ts";

/** Plain data, because the run's record stores it. */
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
  unread: z.number(),
  unreadSample: z.string().optional(),
});

export type AgentReport = z.infer<typeof agentReport>;

export interface EventReader {
  readonly report: AgentReport;
  /** Returns the lines that the run's log shows. */
  read(event: Record<string, unknown>): string[];
}
