/** The data of `list_sandboxes`, which the panel shows. */
import * as z from "zod";

const listedPreview = z.object({ port: z.number(), url: z.string().optional(), expires_at: z.string() });

/** Times are ISO 8601. */
const listedSandbox = z.object({
  name: z.string(),
  /** Whether its container runs. A stopped sandbox starts with the next call, with its saved workspace. */
  state: z.enum(["running", "stopped"]),
  created_at: z.string(),
  /** Accurate to a minute. */
  last_used_at: z.string(),
  /** Bytes in its `/workspace`, measured at most a minute before its last use; missing if not measured. */
  size_bytes: z.number().optional(),
  /** When it was last saved, and the bytes of all its changed files; missing if it was never saved. */
  saved_at: z.string().optional(),
  saved_bytes: z.number().optional(),
  /** Missing if the list is too long. */
  variables: z.array(z.string()).optional(),
  /** Its network access (`INTERNET`), and for `allowlist` the hosts; missing if the list is too long. */
  internet: z.string().optional(),
  allow_hosts: z.array(z.string()).optional(),
  previews: z.array(listedPreview),
});

const listedCheckpoint = z.object({
  id: z.string(),
  sandbox: z.string(),
  label: z.string(),
  saved_at: z.string(),
  bytes: z.number(),
  expires_at: z.string(),
});

export const sandboxListing = z.object({
  sandboxes: z.array(listedSandbox),
  secrets: z.array(
    z.object({ name: z.string(), hosts: z.array(z.string()), variable: z.string().optional() }),
  ),
  task_agents: z.array(z.string()),
  task_commands: z.array(z.string()),
  checkpoints: z.array(listedCheckpoint),
  max_sandboxes: z.number(),
  max_running_sandboxes: z.number(),
  max_concurrent_runs: z.number(),
  max_run_seconds_per_day: z.number(),
  run_seconds_today: z.number(),
  max_model_tokens_per_day: z.number(),
  model_tokens_today: z.number(),
  max_storage_bytes: z.number(),
  storage_bytes: z.number(),
  /** For how many days after a run's end the server keeps its text, output and result. */
  results_kept_days: z.number(),
  max_checkpoints: z.number(),
  max_workspace_bytes: z.number(),
  workspace_bytes: z.number(),
});

export type SandboxListing = z.output<typeof sandboxListing>;
export type ListedSandbox = z.output<typeof listedSandbox>;
export type ListedCheckpoint = z.output<typeof listedCheckpoint>;
export type ListedPreview = z.output<typeof listedPreview>;
