/** What the tools that use checkpoints share. */
import { accountOf } from "../actors/account-of.ts";
import type { Fork } from "../actors/account.ts";
import type { Owner } from "../actors/account-calls.ts";
import type { Config } from "../shared/config.ts";
import { unwrap } from "../shared/errors.ts";
import type { ToolContext } from "./define.ts";
import { noCheckpoints } from "./texts.ts";

/** Whether this server saves workspaces, without which a checkpoint is of no use. */
export function savesWorkspaces({ workspaces }: Config): boolean {
  return workspaces.isSaved;
}

/** @throws {ToolError} `not_configured` where this server saves no workspaces */
export function mustSaveWorkspaces({ config }: ToolContext): void {
  if (savesWorkspaces(config)) return;
  throw noCheckpoints();
}

/**
 * Makes a new sandbox with the files and the settings of a checkpoint; its container starts with its first call.
 * @throws {ToolError} `not_found` for a checkpoint that the caller has not, `invalid_argument` where the sandbox exists
 */
export async function fork(context: ToolContext, checkpoint: string, sandbox: string): Promise<Fork> {
  const { env, principal } = context;
  return unwrap(await accountOf(env, principal.id).fork(ownerOf(context, sandbox), checkpoint));
}

/**
 * Makes a new sandbox with the files that a task has left, and the settings of its sandbox.
 * @throws {ToolError} `not_found` where they are not kept any more
 */
export async function forkTask(context: ToolContext, run: string, sandbox: string): Promise<void> {
  const { env, principal } = context;
  unwrap(await accountOf(env, principal.id).forkArchive(ownerOf(context, sandbox), run));
}

function ownerOf({ config, principal }: ToolContext, sandbox: string): Owner {
  return { principalID: principal.id, sandbox, region: principal.region ?? config.defaultRegion };
}
