/** Errors for workspaces that cannot be saved or restored. */
import type { Plan } from "../../container/sandboxd/snapshots/calls.ts";
import { type ErrorCode, ToolError } from "../shared/errors.ts";
import type { Snapshot } from "./saved-states.ts";
import { StorageError } from "./workspace-objects.ts";

export function workspaceTooLarge(
  left: Pick<Plan["left"], "count" | "crowded">,
  maxBytes: number,
): ToolError {
  const MiB = maxBytes / (1024 * 1024);
  const why =
    left.count > 0
      ? `it is larger than the ${MiB} MB of WORKSPACE_MAX_MB`
      : left.crowded
        ? "it has more files than can be saved"
        : "not all of it can be read";
  return new ToolError("too_large", why);
}

export function stillRestoring(sandbox: string, ms: number): ToolError {
  return new ToolError(
    "no_answer",
    `Sandbox ${sandbox} is being restored, which takes longer than ${Math.round(ms / 1000)} s. This call was not started.`,
    "Make the same call again in 10 seconds.",
    true,
  );
}

export function stillSaving(sandbox: string, ms: number): ToolError {
  return new ToolError(
    "no_answer",
    `Sandbox ${sandbox} is being saved, which takes longer than ${ms / 1000} s. Nothing was changed, and the save goes on.`,
    "Make the same call again in 30 seconds: the parts saved until then are not saved again.",
    true,
  );
}

export function restoreFailed(sandbox: string, { savedAt }: Snapshot, cause: unknown): ToolError {
  const error = new ToolError(
    "storage_unavailable",
    `Sandbox ${sandbox}, saved at ${new Date(savedAt).toISOString()}, could not be restored: ${reason(cause)}. This call was not started, and the saved state is intact.`,
    "Make the same call again in a minute. If that fails too: restore_sandbox goes back to a checkpoint; destroy_sandbox deletes the sandbox with its saved files.",
    true,
  );
  error.cause = cause;
  return error;
}

/** Errors that repeat until the workspace or the principal's limit changes. */
const LASTING: ReadonlySet<ErrorCode> = new Set(["too_large", "no_space", "quota_exceeded", "file_system"]);

/** Whether a failed save will fail again until the caller changes something. */
export function isPermanentSaveError(cause: unknown): cause is ToolError {
  return cause instanceof ToolError && LASTING.has(cause.code);
}

export function saveFailed(sandbox: string, cause: unknown): ToolError {
  const message = `Sandbox ${sandbox} could not be saved: ${reason(cause)}. It continues to run, and the earlier save is intact.`;
  const error = isPermanentSaveError(cause)
    ? new ToolError(
        cause.code,
        message,
        cause.hint ||
          "Delete files that are not needed; restore_sandbox goes back to a checkpoint without saving it.",
      )
    : new ToolError("storage_unavailable", message, "Make the same call again in a minute.", true);
  error.cause = cause;
  return error;
}

export function reason(cause: unknown): string {
  if (cause instanceof StorageError) return "the storage does not answer";
  if (cause instanceof ToolError) return cause.message.replace(/\.$/, "");
  return "of an internal error (details are in the server's log)";
}
