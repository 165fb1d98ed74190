/** What an account's list tells of one sandbox. */
import type { ListedSandbox } from "../shared/sandbox-listing.ts";
import type { Preview, SandboxStatus } from "./account-calls.ts";
import type { ListedSettings, RegisteredSandbox } from "./sandbox-registry.ts";
import type { SavedWorkspace } from "./saved-states.ts";

/** A listed sandbox, without its preview URLs and the operator's network limits. */
export interface SandboxRecord
  extends
    Omit<ListedSandbox, "previews" | "internet" | "allow_hosts" | "variables">,
    Partial<ListedSettings> {
  previews: Preview[];
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
