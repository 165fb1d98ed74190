/** What the tools that use checkpoints share. */
import { accountOf } from "../actors/sandbox-client.ts";
import type { Checkpoint } from "../actors/snapshot-registry.ts";
import type { Config } from "../shared/config.ts";
import { ToolError, unwrap } from "../shared/errors.ts";
import type { ToolContext } from "./define.ts";

/** Whether this server saves workspaces, without which a checkpoint is of no use. */
export function savesWorkspaces({ workspaces }: Config): boolean {
  return workspaces.isSaved;
}

/** @throws {ToolError} `not_configured` where this server saves no workspaces */
export function mustSaveWorkspaces({ config }: ToolContext): void {
  if (savesWorkspaces(config)) return;
  throw new ToolError(
    "not_configured",
    "This server saves no workspaces, so it makes and restores no checkpoints; nothing was changed.",
    "The operator has to remove WORKSPACE_SAVE=off. Until then, keep what matters with read_file or file_link.",
  );
}

/**
 * Makes a new sandbox with the files of a checkpoint; its container starts with its first call.
 * @throws {ToolError} `not_found` for a checkpoint that the caller has not, `invalid_argument` where the sandbox exists
 */
export async function fork(
  { env, principal }: ToolContext,
  checkpoint: string,
  sandbox: string,
): Promise<Checkpoint> {
  return unwrap(await accountOf(env, principal.id).fork(principal.id, sandbox, checkpoint));
}

/**
 * Makes a new sandbox with the files that a task has left.
 * @throws {ToolError} `not_found` where they are not kept any more
 */
export async function forkTask({ env, principal }: ToolContext, run: string, sandbox: string): Promise<void> {
  unwrap(await accountOf(env, principal.id).forkArchive(principal.id, sandbox, run));
}
