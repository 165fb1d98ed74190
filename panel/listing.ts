/** What `list_sandboxes` and `list_runs` answer, in the form of their output schemas. */
import type { RunState } from "./follow.ts";
import type { Preview } from "./preview.tsx";

export interface Sandbox {
  name: string;
  state: "running" | "stopped";
  created_at: string;
  last_used_at: string;
  size_bytes?: number;
  saved_at?: string;
  saved_bytes?: number;
  variables: string[];
  previews: Preview[];
}

export interface Checkpoint {
  id: string;
  sandbox: string;
  label: string;
  saved_at: string;
  bytes: number;
  expires_at: string;
}

export interface Listing {
  sandboxes: Sandbox[];
  secrets: { name: string; hosts: string[]; variable?: string }[];
  checkpoints: Checkpoint[];
  max_sandboxes: number;
  max_running_sandboxes: number;
  max_concurrent_runs: number;
  max_run_seconds_per_day: number;
  run_seconds_today: number;
  max_model_tokens_per_day: number;
  model_tokens_today: number;
  max_storage_bytes: number;
  storage_bytes: number;
  max_checkpoints: number;
  max_workspace_bytes: number;
  workspace_bytes: number;
}

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
