/** What an account tells of its sandboxes in a list. */
import type { Limits } from "../shared/config.ts";
import type { ListedSandbox } from "../shared/sandbox-listing.ts";
import type { Preview, SandboxStatus } from "./account-calls.ts";
import type { ListedSettings, RegisteredSandbox } from "./sandbox-registry.ts";
import type { Checkpoint, SavedWorkspace } from "./saved-states.ts";

/** A listed sandbox, without its preview URLs and the operator's network limits. */
export interface SandboxRecord
  extends
    Omit<ListedSandbox, "previews" | "internet" | "allow_hosts" | "variables">,
    Partial<ListedSettings> {
  previews: Preview[];
}

export interface AccountView {
  sandboxes: SandboxRecord[];
  /** Of how many sandboxes the settings are missing, because they are too long for a list. These sandboxes are the last ones. */
  unlistedSettings: number;
  limits: Limits;
  runSecondsToday: number;
  modelTokensToday: number;
  /** Bytes of records, logs and artifacts; may be some seconds old. */
  storedBytes: number;
  /** Newest first. */
  checkpoints: Checkpoint[];
  /** Bytes of saved workspaces, checkpoints and task archives. */
  workspaceBytes: number;
}

export function recordOf(
  name: string,
  registered: RegisteredSandbox | undefined,
  saved: SavedWorkspace | undefined,
  status: SandboxStatus | undefined,
  settings: Partial<ListedSettings> = {},
): SandboxRecord {
  const isRunning = registered?.state === "running" && status?.isAlive !== false;
  const createdAt = registered?.createdAt ?? saved?.createdAt ?? 0;
  const usedAt = registered?.lastUsedAt ?? saved?.usedAt ?? 0;
  return {
    name,
    state: isRunning ? "running" : "stopped",
    created_at: new Date(createdAt).toISOString(),
    last_used_at: new Date(usedAt).toISOString(),
    size_bytes: isRunning ? (registered.sizeBytes ?? undefined) : 0,
    ...(saved && { saved_at: new Date(saved.savedAt).toISOString(), saved_bytes: saved.bytes }),
    previews: status?.previews ?? [],
    ...settings,
  };
}
