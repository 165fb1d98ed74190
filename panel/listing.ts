/** What `list_runs` answers, in the form of its output schema. */
import type { RunState } from "./follow.ts";

export interface Run {
  id: string;
  kind: "command" | "code" | "task";
  state: RunState;
  title: string;
  started_at: string;
  duration_ms: number;
  exit_code?: number;
}

export interface Runs {
  runs: Run[];
  next_cursor?: string;
}
