/** What tasks say beside how one ended, which end.ts says: errors before a task, and notes on what it left. */
import { ToolError } from "../shared/errors.ts";

function invalid(message: string, hint: string): ToolError {
  return new ToolError("invalid_argument", message, hint);
}

// Before a task

export function noRepositoryName(repository: string): ToolError {
  return invalid(`${repository} does not name a repository.`, "Pass an address that git clone takes.");
}

export function agentAtWork(sandbox: string): ToolError {
  return new ToolError(
    "permission_denied",
    `A coding agent is at work in sandbox ${sandbox}. Running anything beside it needs the scope tasks:run, which your token lacks: it could use the agent's model.`,
    "Use another sandbox, or try again when list_runs with kind task shows none running there.",
    true,
  );
}

export function describeOffered(offered: readonly string[]): string {
  return offered.length > 0 ? `The operator offers ${offered.join(", ")}.` : "The operator offers none.";
}

export function noDefinition(missing: readonly string[], offered: readonly string[]): ToolError {
  return invalid(
    `There is no ${missing.join(", no ")}.`,
    `${describeOffered(offered)} Others come with a repository or a sandbox that has them in .claude.`,
  );
}

export function tooManyNames(kind: string, count: number, most: number): ToolError {
  return invalid(`${kind} has ${count} names, and the limit is ${most}.`, "Leave some out.");
}

export function notADefinition(kind: string, name: string): ToolError {
  return invalid(
    `${kind}: "${name}" is not the name of a definition: that is its file name without .md.`,
    "It has letters, digits, dots, dashes and underscores, 64 at most, and begins with a letter or digit.",
  );
}

export function unusableDefinition(component: string, problem: string): ToolError {
  return invalid(`${component} of the operator cannot be used: ${problem}.`, "Leave it out.");
}

// What a task left

/** How many artifacts an error names. */
const NAMED_ARTIFACTS = 20;

export function noArtifact(
  run: string,
  path: string,
  paths: readonly string[],
  isRunning: boolean,
): ToolError {
  const hint =
    paths.length > 0
      ? `It has: ${paths.slice(0, NAMED_ARTIFACTS).join(", ")}.`
      : isRunning
        ? "A task has artifacts once it has ended: wait for it with get_result."
        : "Only tasks that changed files have artifacts.";
  return new ToolError("not_found", `${run} has no artifact ${path}.`, hint);
}

export function archiveTooLarge(maxBytes: number): ToolError {
  const MiB = maxBytes / (1024 * 1024);
  return new ToolError(
    "too_large",
    `its files, packed, are larger than an archive (TASK_ARCHIVE_MAX_MB: ${MiB} MiB) or than the rest of MAX_WORKSPACES_MB, or there are too many.`,
  );
}

export function archiveLeavesOut(bytes: number, count: number, names: readonly string[]): string {
  return `The archive leaves out ${bytes} bytes (files: ${count}), among them ${names.join(", ")}: they end with the sandbox.`;
}

export function archiveLeavesOutCrowded(names: readonly string[]): string {
  return `The archive leaves out directories with too many files, which can be made again: ${names.join(", ")}.`;
}

export const ARCHIVE_WITHOUT_CONVERSATION =
  "The agent's conversation is too large for the archive (TASK_ARCHIVE_MAX_MB): once the sandbox is gone, a task that continues this one has the files only.";

export const CHANGES_UNKNOWN = "Its changes could not be determined.";

export function notAllKept(why: string): string {
  return `Not all results could be kept: ${why}`;
}

export const NOT_KEPT_IN_TIME = "the sandbox took too long.";
export const NOT_KEPT_INTERNAL = "the server had an internal error.";

export const CANCELLED_TEXT = "Cancelled before the agent started.";
export const AGENT_NEVER_STARTED = "The server was restarted before the agent started. Start the task again.";
