import { accountOf } from "../actors/account-of.ts";
import type { Fork } from "../actors/account.ts";
import type { Owner } from "../actors/account-calls.ts";
import { unlessReset } from "../actors/sandbox-client.ts";
import type { Config } from "../shared/config.ts";
import { unwrap } from "../shared/errors.ts";
import type { ToolContext } from "./define.ts";
import { noCheckpoints } from "./texts.ts";

export function savesWorkspaces({ workspaces }: Config): boolean {
  return workspaces.isSaved;
}

/** @throws {ToolError} `not_configured` if this server saves no workspaces */
export function requireSavedWorkspaces({ config }: ToolContext): void {
  if (savesWorkspaces(config)) return;
  throw noCheckpoints();
}

/**
 * Creates a sandbox with a checkpoint's files and settings. Its container starts with the first call to the sandbox. @throws
 * {ToolError}
 */
export async function fork(context: ToolContext, checkpoint: string, sandbox: string): Promise<Fork> {
  const { env, principal } = context;
  return await unlessReset(sandbox, async () =>
    unwrap(await accountOf(env, principal.id).fork(ownerOf(context, sandbox), checkpoint)),
  );
}

/**
 * Creates a sandbox with the files of a task, and the settings of the sandbox in which the task ran.
 * @throws {ToolError} `not_found` if the files are gone
 */
export async function forkTask(context: ToolContext, run: string, sandbox: string): Promise<void> {
  const { env, principal } = context;
  await unlessReset(sandbox, async () =>
    unwrap(await accountOf(env, principal.id).forkArchive(ownerOf(context, sandbox), run)),
  );
}

function ownerOf({ config, principal }: ToolContext, sandbox: string): Owner {
  return { principalID: principal.id, sandbox, region: principal.region ?? config.defaultRegion };
}
