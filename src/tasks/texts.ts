/** The texts of tasks: errors before a task, progress, how the task ended, and notes on its results. */
import { nextDay } from "../shared/days.ts";
import { ToolError } from "../shared/errors.ts";
import { shownName, toVisibleJSON } from "../shared/shown.ts";
import { shortened } from "../shared/text.ts";

const invalid = (message: string, hint: string, isRetryable = false) =>
  new ToolError("invalid_argument", message, hint, isRetryable);

// Before a task

/** @param what a text of `NEEDS_MODEL` */
export const noModel = (what: string) =>
  new ToolError(
    "not_configured",
    `This server has no credential for ${what}.`,
    "The operator has to set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN: on Cloudflare with `npx wrangler secret put`, on the local platform in .dev.vars. Until then, use run_code and run_command.",
  );
export const NEEDS_MODEL = {
  question: "a model, so it answers no questions",
  task: (agent: string) => `${agent}, so it runs no tasks`,
} as const;
export const checkpointAndContinue = () =>
  invalid(
    "checkpoint and continue_from cannot be used together: a continued task keeps its own files.",
    "Leave one of the two out.",
  );
export const checkpointAndSandbox = () =>
  invalid(
    "checkpoint and sandbox cannot be used together: the task gets a fresh sandbox from the checkpoint.",
    "Leave sandbox out. To keep the sandbox after the task, make it with restore_sandbox, then pass its name as sandbox, without checkpoint.",
  );
export const repositoryAndContinue = () =>
  invalid(
    "repository and continue_from cannot be used together: a continued task has the files of the earlier task.",
    "Leave repository out.",
  );
export const branchAlone = () =>
  invalid("branch needs repository, the address to clone from.", "Pass repository, or leave branch out.");
export const otherAgent = (task: string, agent: string) =>
  invalid(`Task ${task} was done by ${agent}, and no other agent can continue it.`, "Leave agent out.");
export const agentNeedsKey = (agent: string) =>
  new ToolError(
    "not_configured",
    `${agent} needs ANTHROPIC_API_KEY, and the server has only a CLAUDE_CODE_OAUTH_TOKEN, which is for Claude Code.`,
    "Leave agent out.",
  );
export const noTurnLimit = (agent: string) =>
  invalid(`${agent} does not support max_turns.`, "Use timeout_seconds instead.");
export const noComponents = (agent: string) =>
  invalid(
    `${agent} does not support the parameters agents and commands.`,
    "Leave out agents and commands, or choose another agent.",
  );
export const notATask = (id: string) =>
  invalid(
    `${id} is not a task of an agent, so it cannot be continued.`,
    "list_runs with kind task shows tasks.",
  );
export const taskRunning = (id: string) =>
  invalid(`Task ${id} is still running.`, `Wait for it with get_result, id ${id}, then continue it.`, true);
export const noConversation = (id: string) =>
  invalid(`Task ${id} ended before its agent began a conversation.`, "Start a new task.");
export const filesElsewhere = (id: string, sandbox: string) =>
  invalid(
    `Task ${id} cannot continue in sandbox ${sandbox}: its files are not there.`,
    "Leave sandbox out: the task continues in its own sandbox if that still runs, otherwise in a fresh one with its saved files.",
  );
export const savedFilesText = (sandbox: string) =>
  `Start a new task, with sandbox ${sandbox} if list_sandboxes shows it: then it has the files that were saved there.`;
export const taskFilesGone = (id: string, sandbox: string) =>
  new ToolError(
    "not_found",
    `The container of task ${id} has ended, and its files were not kept as the task's.`,
    savedFilesText(sandbox),
  );
export const noRepositoryName = (repository: string) =>
  invalid(`${repository} is not the address of a repository.`, "Pass an address that git clone takes.");
export const agentIsWorking = (sandbox: string) =>
  new ToolError(
    "permission_denied",
    `This call was not started: a coding agent is running in sandbox ${sandbox}, and code in the same sandbox could use the agent's model credential. While it runs, calls there need the scope tasks:run, which your token lacks.`,
    "Use another sandbox, or try again when list_runs with kind task shows no running task there.",
    true,
  );
export const describeOffered = (offered: readonly string[]) =>
  offered.length > 0 ? `The operator offers ${offered.join(", ")}.` : "The operator offers no definitions.";
export const noDefinition = (missing: readonly string[], offered: readonly string[]) =>
  invalid(
    `There is no ${missing.join(", no ")}.`,
    `${describeOffered(offered)} Other definitions must be in .claude of the repository or the sandbox.`,
  );
export const tooManyNames = (kind: string, count: number, most: number) =>
  invalid(`${kind} has ${count} names, and the limit is ${most}.`, "Leave some out.");
export const notADefinition = (kind: string, name: string) =>
  invalid(
    `${kind}: "${name}" is not the name of a definition. A definition's name is its file name without .md.`,
    "A name has at most 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit.",
  );
export const unusableDefinition = (component: string, problem: string) =>
  invalid(`The operator's ${component} cannot be used: ${problem}.`, "Leave it out.");

/** Why a definition of the operator cannot be used, as the end of a sentence. */
export const UNUSABLE = {
  tooLarge: (most: number) => `it is larger than ${most} bytes`,
  unreadable: "its file cannot be read",
  directory: "it is a directory",
  brokenLink: "its file is a broken link",
  notText: "it is not UTF-8 text",
  otherName: (name: string) => `its front matter must have \`name: ${name}\`, like its file name`,
};

// Results of a task

/** Why a changed file is not an artifact. */
export const NOT_KEPT = {
  link: "a symbolic link",
  unnamed: "its name is not UTF-8, so git's escaped form is shown",
  unreadable: "it cannot be read",
  tooLate: "the run has ended",
  tooMany: (most: number) => `there are ${most} artifacts already`,
  tooLarge: (bytes: number, most: number) => `${bytes} bytes; an artifact may have at most ${most}`,
  noRoom: (bytes: number, most: number) => `${bytes} bytes; all artifacts together may have at most ${most}`,
};
const NAMED_ARTIFACTS = 20;
const ARTIFACT_CHARS = 300;

export const noArtifact = (run: string, path: string, paths: readonly string[], isRunning: boolean) =>
  new ToolError(
    "not_found",
    `${run} has no artifact ${shownName(path)}.`,
    paths.length > 0
      ? `It has: ${paths
          .slice(0, NAMED_ARTIFACTS)
          .map((one) => shownName(shortened(one, ARTIFACT_CHARS)))
          .join(", ")}.`
      : isRunning
        ? "A task has artifacts once it has ended: wait for it with get_result."
        : "Only tasks that changed files have artifacts.",
  );

export function archiveTooLarge(maxBytes: number): ToolError {
  const MiB = maxBytes / (1024 * 1024);
  return new ToolError(
    "too_large",
    `there are too many files, or their archive exceeds TASK_ARCHIVE_MAX_MB (${MiB} MiB) or the free space of MAX_WORKSPACES_MB.`,
  );
}

export const archiveLeavesOut = (bytes: number, count: number, names: readonly string[]) =>
  `The archive leaves out ${bytes} bytes (files: ${count}), among them ${names.join(", ")}: they are lost when the sandbox is destroyed.`;
export const archiveLeavesOutCrowded = (names: readonly string[]) =>
  `The archive leaves out directories with too many files, which can be regenerated: ${names.join(", ")}.`;
export const ARCHIVE_WITHOUT_CONVERSATION =
  "The agent's conversation is too large for the archive (TASK_ARCHIVE_MAX_MB): when the sandbox is gone, a task that continues this one has only the files.";
export const CHANGES_UNKNOWN = "The task's changes could not be determined.";
export const notAllKept = (why: string) => `Not all results could be kept: ${why}`;
export const NOT_KEPT_IN_TIME = "the sandbox took too long.";
export const NOT_KEPT_INTERNAL = "the server had an internal error (details are in its log).";
export const CANCELLED_TEXT = "Cancelled before the agent started.";

// Progress

export const RESTORING = "Restoring the workspace and the conversation";
export const WAITING_FOR_TASK = "Waiting for the earlier task in this sandbox";
export const OWN_DEFINITION =
  "The workspace has a definition with the same name as the operator's; the workspace's is used";
export const NO_DIFF = "The server could not record the files before the task, so there will be no diff";
export const waitingForAgent = (agent: string) => `Waiting for ${agent} to be installed`;
export const startedWith = (model = "its default model") => `Started with ${model}`;
export const requestFailed = (reason = "no reason given") =>
  `The request to the model failed (${reason}): trying again`;
export const modelStopped = (reason = "unknown") => `the model stopped for the reason ${reason}`;
export const modelFailedText = (status: number, message: string) =>
  `The model's API responded with status ${status}: ${toVisibleJSON(message)}`;

// How a task ended

const stopped = (isConfirmed: boolean) =>
  isConfirmed
    ? ", with all its known processes."
    : ". The sandbox did not confirm this; destroy_sandbox certainly ends all processes.";
export const taskCancelled = (isConfirmed: boolean) => `The task was cancelled${stopped(isConfirmed)}`;
export const NO_REASON = "it gave no reason";
export const howToContinue = (id: string) =>
  ` Its work is kept: continue it with execute_task and continue_from ${id}.`;

/** @param error as from `describeError` */
export const modelWasFailing = (error: string) => ` The model's API was failing: ${error}.`;
export const didNotExit = (agent: string, isConfirmed: boolean) =>
  `${agent} finished, but its program did not exit and was stopped${stopped(isConfirmed)}`;

/** @param cut why the task had less time than requested @param api as from `modelWasFailing` */
export function timedOut(
  agent: string,
  seconds: number,
  { isConfirmed, api, cut }: { isConfirmed: boolean; api: string; cut: string | undefined },
): string {
  const how = cut ? `was stopped after ${seconds} s` : `did not finish within ${seconds} s and was stopped`;
  const next = cut ?? "Raise timeout_seconds (in REST: timeout, in milliseconds).";
  return `${agent} ${how}${stopped(isConfirmed)}${api} ${next}`;
}
export const budgetSpent = ({ tokens, requests }: { tokens: number; requests: number }) =>
  `The task used up its budget for the model (${tokens} tokens in ${requests} requests). Split it into smaller tasks, or ask the operator to raise MAX_TASK_TOKENS.`;
export const dayIsSpent = () =>
  `The model tokens for your tasks today are used up (MAX_MODEL_TOKENS_PER_DAY). The next day begins at ${nextDay(Date.now())}.`;
export const outOfTurns = (agent: string, maxTurns: number | undefined) =>
  `${agent} used up its turns (max_turns${maxTurns === undefined ? "" : `: ${maxTurns}`}) before it was done. Raise max_turns.`;
export const agentFailed = (agent: string, reason: string) => `${agent} stopped with an error: ${reason}.`;
export const modelFailedAgent = (agent: string, advice: string) =>
  `${agent} stopped because the model's API failed: ${advice}`;

/** The beginning of the note of a task that could not clone its repository. */
export const CLONE_FAILED = "git could not clone";

export function cloneFailed(repository: string | undefined, branch: string | undefined, reason: string) {
  // The address may have a password or token, which the result must not repeat.
  const address = repository?.replace(/^(\w+:\/\/)[^/]*@/, "$1");
  const named = `${address}${branch ? `, branch ${branch}` : ""}`;
  return `${CLONE_FAILED} ${named}: ${reason}. Check the address and the branch. A private repository needs credentials for its host, a URL with a token, or a sandbox in which you cloned it before.`;
}

export const directoryInUse = (directory: string) =>
  `${directory} already holds files in this sandbox, so nothing was cloned. Leave repository out to work on these files, or leave sandbox out for a fresh one.`;
export const agentMissing = (agent: string, program: string, image: string, install: string) =>
  `The sandbox has no ${agent}: the program ${program} is not installed in it. On Cloudflare, ${image}; on the local platform, ${install} and restart the server.`;
export const directoryFailed = (directory: string, reason: string) =>
  `${directory} could not be made or entered: ${reason}.`;
export const exitText = (status: number) =>
  status > 128 ? `was killed by signal ${status - 128}` : `ended with status ${status}`;

/** @param end as from `exitText` @param stderr the last line of standard error, if any */
export const outputUnreadable = (agent: string, end: string, sample: string, stderr: string) =>
  `${agent} ${end} and its output could not be parsed. The output begins with: ${sample}.${lastLineText(stderr)} Look at the log with get_result and cursor 0; then try again.`;

/** @param api as from `modelWasFailing`, or empty */
export const endedEarly = (agent: string, end: string, stderr: string, api: string) =>
  `${agent} ${end} before it was done.${lastLineText(stderr)}${api} Try again. If the task needs much memory, split it.`;
const lastLineText = (stderr: string) => stderr && ` Its last line of stderr: ${stderr}.`;
export const describeError = (status: number, message: string) => `status ${status}, ${message}`;

/** Completes a sentence about an error of the model's API, and says what to do. */
export function modelAdvice(status: number, described: string): string {
  if (status === 401 || status === 403)
    return `it refused the server's credential (${described}). The operator has to set a valid ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN.`;
  if (status === 429) return `it limits the rate of requests (${described}). Try again in some minutes.`;
  if (status >= 500) return `it is overloaded or failing (${described}). Try again in some minutes.`;
  return `${described}.`;
}

// Questions

/** @param advice as from `modelAdvice` */
export const modelFailed = (advice: string) => `The model's API failed: ${advice}`;
export const QUESTION_CANCELLED = "The question was cancelled before its program was run.";
export const programLate = (timeoutMs: number) =>
  `The model did not write the program within ${timeoutMs / 1000} s, so nothing was run.`;
export const PROGRAM_TEXTS = {
  unusable: (reason: string) => `The model's response cannot be used: ${reason}. Ask again, or ask for less.`,
  tooLong: (characters: number) => `it is longer than the limit for a program, ${characters} characters`,
  notAnObject: "it is not a JSON object",
  endedEarly: "The model's response ended early. Ask again.",
  declined: "The model declined to answer.",
  overLimit: "The program is longer than the model's token limit. Ask for less, or use execute_task.",
  none: "The model wrote no program. Ask for a result that a program can print, or use execute_task.",
  modelText: (text: string) => (text === "" ? "" : ` The model wrote: ${toVisibleJSON(text)}`),
  noText: " The model wrote nothing else.",
  invalid: (tool: string, reason: string) =>
    `The model called ${tool} with no program: ${reason}. Ask again.`,
} as const;

/** Refused requests of a task to the model. The agent reads them. */
export const MODEL_CALL_TEXTS = {
  unknownKey: "No running task of this sandbox has this key.",
  ended: "The task with this key has ended.",
  usedUp: (allowed: string) => `This task has used up its ${allowed}.`,
  busy: (underWay: number) => `This task has ${underWay} requests to the model under way.`,
};
