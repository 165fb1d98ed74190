/** Texts of actors: limits, the network, set-ups, workspaces, and notices after a stop. */
import type { NamedFiles, Plan } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import type { RunView } from "../runs/run-types.ts";
import { MAX_HOSTS } from "../shared/network-policy.ts";
import { nextDay } from "../shared/days.ts";
import { EndingError, type ErrorCode, ToolError } from "../shared/errors.ts";
import { ARTIFACTS, LOG_NAME } from "../shared/resource-uri.ts";
import { shownName, shownTime, toVisibleJSON } from "../shared/shown.ts";
import { savedSize } from "../shared/text.ts";
import { firstNames, type LeftOut, NAMED, type Snapshot } from "./saved-states.ts";
import { StorageError } from "./workspace-objects.ts";

// Calls that do not reach a sandbox

const RETRY_IN_10_SECONDS = "Make the same call again in 10 seconds.";

/** An error after which the same call may succeed later. */
const temporary = (code: ErrorCode, message: string, hint = RETRY_IN_10_SECONDS) =>
  new ToolError(code, message, hint, true);
export const overloaded = (sandbox: string) =>
  temporary(
    "sandbox_unavailable",
    `Sandbox ${sandbox} has too many calls at once. This call was not started.`,
  );
export const actorReset = (sandbox: string) =>
  new ToolError(
    "connection_lost",
    `The server restarted during this call for sandbox ${sandbox}. The call may have run, or may still run.`,
    `list_runs with sandbox ${sandbox} lists runs that took over a second. For a shorter run, check its effects before you repeat it. Reading or overwriting a file is safe to repeat; before you repeat an append, check the file's size with list_files.`,
  );

/** The error if the database of the sandbox's actor could not grow. */
export const serverDiskFull = (sandbox: string) =>
  new ToolError(
    "storage_unavailable",
    `The server's disk is full, so this call for sandbox ${sandbox} was interrupted. It may have run, or may still run.`,
    "Tell the user that the operator has to free space on the server's disk. After that, check the call's effects before you repeat it.",
  );

/**
 * The error if the platform could not run the sandbox's actor. workerd names no reason if an actor's database cannot be created.
 * @param reason the platform's words, with a reference to its log
 */
export const platformFailed = (sandbox: string, reason: string) =>
  new ToolError(
    "storage_unavailable",
    `The platform failed during this call for sandbox ${sandbox} (${reason}). The call may have run, or may still run.`,
    "Repeat the call once, after you have checked its effects. If it fails again, tell the user that the operator has to look at the server: on a local server, the usual reason is a full disk, or a damaged file.",
  );

/** The error for a call that takes longer than its client waits. @param hasBegun whether the work has begun */
export function actorUnreachable(sandbox: string, ms: number, hasBegun: boolean): ToolError {
  const seconds = Math.round(ms / 1000);
  const [message, hint] = hasBegun
    ? [
        `Sandbox ${sandbox} has not responded within ${seconds} s; the call continues.`,
        "Look at what was done (list_files, read_file) before you repeat the call. If these fail too, use destroy_sandbox and start again.",
      ]
    : [
        `Sandbox ${sandbox} was not ready within ${seconds} s: it is starting, being set up, or too busy. This call was not started.`,
      ];
  return temporary("no_answer", message, hint);
}

/** The error for a caller who may not start a container. @param isKnown whether the sandbox was used or configured before */
export const notRunning = (sandbox: string, isKnown: boolean) =>
  isKnown
    ? new ToolError(
        "not_found",
        `Sandbox ${sandbox} is not running, and this call does not start it. Its saved files are kept.`,
        "Start it with a call that runs or writes, such as run_command.",
      )
    : new ToolError(
        "not_found",
        `Sandbox ${sandbox} is not running and was never used, so it has no files; this call does not create it.`,
        "list_sandboxes shows your sandboxes.",
      );

export const MAY_NOT_START = "The sandbox has no container, and this call may not start one.";
export const stopped = (sandbox: string) => new ToolError("not_found", `Sandbox ${sandbox} is not running.`);
export const cannotStart = () =>
  new ToolError(
    "sandbox_unavailable",
    "The sandbox could not be started: the server's platform cannot create its container.",
    "Make the same call once more. If that fails too, tell the user that the operator has to act: the server's log has the reason.",
  );
export const noContainerReady = () =>
  temporary(
    "sandbox_unavailable",
    "The sandbox could not be started now: the platform has no container ready.",
  );

// Limits

const MiB = (bytes: number) => Math.ceil(bytes / 1024 / 1024);
const DELETE_CHECKPOINTS =
  "destroy_sandbox with checkpoint deletes one checkpoint; with checkpoints=true it deletes the sandbox with all of them.";

type QuotaText = (allowed: number, used: number) => [message: string, hint: string];

const QUOTA_TEXTS = {
  sandboxes: (allowed, used) => [
    `You have ${used} sandboxes, and your limit is ${allowed}.`,
    "Use one of them (list_sandboxes), or delete one that you no longer need (destroy_sandbox).",
  ],
  runningSandboxes: (allowed, used) => [
    `You have ${used} running sandboxes, all in use, and your limit is ${allowed}.`,
    "Use one of them (list_sandboxes), delete one (destroy_sandbox), or make the same call again in a minute: the server then stops an idle one.",
  ],
  modelTokensPerDay: (allowed, used) => [
    `Your tasks have used ${used} model tokens today, and your limit is ${allowed}.`,
    `The next day begins at ${nextDay(Date.now())}. Until then, use run_code and run_command.`,
  ],
  concurrentRuns: (allowed, used) => [
    `You have ${used} runs at once, and your limit is ${allowed}.`,
    "Wait for one with get_result, or stop one with cancel_run; list_runs shows a sandbox's runs.",
  ],
  checkpoints: (allowed, used) => [
    `You have ${used} checkpoints, and your limit is ${allowed}.`,
    `${DELETE_CHECKPOINTS} list_sandboxes names them.`,
  ],
  workspaceBytes: (allowed, used) => [
    `Your saved sandboxes and checkpoints take ${MiB(used)} MB, and your limit is ${MiB(allowed)} MB.`,
    `Delete files or sandboxes (destroy_sandbox) that you no longer need. ${DELETE_CHECKPOINTS} list_sandboxes shows their sizes.`,
  ],
  runSecondsPerDay: (allowed, used) => [
    `Your runs have used ${used} of ${allowed} run seconds today, and runs in progress have reserved the rest.`,
    "Wait until these runs end, or until the next day (UTC).",
  ],
} satisfies Record<string, QuotaText>;

export const quotaError = ({
  limit,
  allowed,
  used,
}: {
  limit: keyof typeof QUOTA_TEXTS;
  allowed: number;
  used: number;
}) => temporary("quota_exceeded", ...QUOTA_TEXTS[limit](allowed, used));

/** Why a run got less time than it asked for. */
export const secondsCutText = (seconds: number, perDay: number) =>
  `This run got only ${seconds} s: other runs have used or reserved the rest of your ${perDay} run seconds for today. The next day begins at ${nextDay(Date.now())}.`;
export const tooManyWaiting = (most: number) =>
  temporary(
    "quota_exceeded",
    `${most} calls already wait for runs of this sandbox. More are not allowed.`,
    "To get the current state, call get_result with wait_seconds 0. To wait, make the same call again when one of those calls has returned.",
  );
export const tooManyPreviews = (open: number) =>
  new ToolError(
    "quota_exceeded",
    `${open} ports of this sandbox are exposed. More are not allowed.`,
    "Close one with expose_port and expose=false; list_sandboxes shows them.",
  );

export const tooManyVariables = (
  { count, bytes }: { count: number; bytes: number },
  max: { count: number; bytes: number },
) =>
  new ToolError(
    "too_large",
    `The sandbox would have ${count} variables with ${bytes} bytes in total (names included). The limits are ${max.count} variables and ${max.bytes} bytes.`,
    "Write long values to a file (write_file) and set a variable to its path; an empty value removes a variable.",
  );

export const tooManyIdleMinutes = (minutes: number, max: number) =>
  new ToolError(
    "permission_denied",
    `idle_minutes ${minutes} is more than this server allows; nothing was changed.`,
    `Give ${max} at most. The operator can raise MAX_IDLE_MINUTES.`,
  );

// Refused calls, and missing things

export const needsScope = (scope: string | undefined) =>
  new ToolError(
    "permission_denied",
    `This call needs the scope ${scope}, which your token lacks.`,
    "Ask the user for a token with this scope.",
  );
export const changeRefused = (path: string, why: string) =>
  new ToolError(
    "invalid_argument",
    `Nothing was written to ${shownName(path)}: ${why}.`,
    "The error names the place in the file only if the token has the scope sandbox:read.",
  );
export const noSuchFile = (run: string, name: string) =>
  new ToolError(
    "not_found",
    `${run} has no ${shownName(name)}.`,
    `Every run has ${LOG_NAME}. A task may also have ${ARTIFACTS}<path>.`,
  );
export const otherRegion = (sandbox: string, requested: string, made: string | undefined) =>
  new ToolError(
    "invalid_argument",
    `Sandbox ${sandbox} cannot move to ${requested}: its first use placed it ${made ? `in ${made}` : "in a region that the platform chose"}, and destroying it does not change that.`,
    "Use another name, with region in its first call.",
  );
export const sandboxExists = (sandbox: string) =>
  new ToolError(
    "invalid_argument",
    `Sandbox ${sandbox} exists already; nothing was changed.`,
    "Give another name, or delete that sandbox first (destroy_sandbox).",
  );

export const destroyedMeanwhile = (sandbox: string) =>
  temporary(
    "not_found",
    `Sandbox ${sandbox} was destroyed during this call, so nothing was restored.`,
    "Make the same call again: it makes a new sandbox with the checkpoint's files and settings.",
  );

/** A clause, which completes another error's sentence. */
export const workspaceExists = (sandbox: string) =>
  new ToolError("invalid_argument", `sandbox ${sandbox} has a workspace already`);
export const noCheckpoint = (id: string) =>
  new ToolError(
    "not_found",
    `There is no checkpoint ${id}.`,
    "It may have expired; list_sandboxes names your checkpoints.",
  );
export const otherSandboxesCheckpoint = (id: string, owner: string, sandbox: string) =>
  new ToolError(
    "invalid_argument",
    `Nothing was deleted: checkpoint ${id} belongs to sandbox ${owner}, not ${sandbox}.`,
    `Set sandbox to ${owner}.`,
  );
export const nothingToKeep = (sandbox: string) =>
  new ToolError(
    "not_found",
    `Sandbox ${sandbox} has no changed files, so there is nothing to save.`,
    "list_sandboxes shows what each sandbox holds.",
  );
export const taskFilesNotKept = (run: string) =>
  new ToolError(
    "not_found",
    `The files of task ${run} are no longer kept: its record has expired, or MAX_WORKSPACES_MB was reached.`,
    "Start a new task.",
  );

// The network

export const networkForbidden = (requested: string, allowed: string) =>
  new ToolError(
    "permission_denied",
    `The operator of this server does not allow ${requested}, only ${allowed}.`,
    "To see the current settings, call configure_sandbox and leave out internet and allow_hosts.",
  );

export const networkRestricted = (sandbox: string) =>
  temporary(
    "sandbox_unavailable",
    `Another call restricted the network of sandbox ${sandbox} during this call; nothing was changed.`,
    "Repeat this call, so that a person can decide.",
  );

/** The server does not know which program made the connections: several may run in the sandbox. */
export const refusedText = (hosts: string) => `During this run, connections to ${hosts} were refused.`;
export const mismatchText = (hosts: string) =>
  `${refusedText(hosts)} The host of the connection, the host name in the TLS handshake (SNI, not encrypted) and the Host header must be the same.`;

export const unknownText = (hosts: string) =>
  `During this run, these names could not be resolved: ${hosts}. Check their spelling.`;

/** @param list the value of allow_hosts that allows them */
export function allowText(hosts: readonly string[], list: readonly string[]): string {
  const excess = list.length - MAX_HOSTS;
  const change =
    excess > 0
      ? `allow_hosts takes at most ${MAX_HOSTS} hosts. Remove ${excess} others first.`
      : `configure_sandbox with allow_hosts ${JSON.stringify(list)}.`;
  return `To allow ${hosts.join(", ")}: ${change}`;
}

export const operatorForbidsText = (hosts: readonly string[]) =>
  `The operator of this server does not allow ${hosts.join(", ")}.`;
export const neverAllowedText = (hosts: Iterable<string>) =>
  `allow_hosts cannot allow ${[...hosts].join(", ")}: sandboxes reach only hosts on the internet.`;
export const ALLOWED_MEANWHILE = "Some of these hosts have been allowed since: try them again.";
export const portsText = (ports: string) => `allow_hosts allows only the ports ${ports}.`;

// Set-ups

export const setUpRanText = (run: string, seconds: number) =>
  `The set-up of this sandbox ran first (${seconds} s; output: get_result, id ${run}).`;
const RERUN_IN_NEXT_CONTAINER = "the next container runs it again";
export const setUpNotSavedText = (why: string | undefined) =>
  `Its result could not be saved${why === undefined ? "" : `, because ${why}`}: ${RERUN_IN_NEXT_CONTAINER}.`;
export const setUpSkippedText = (times: number) =>
  `The set-up of this sandbox is skipped: the sandbox ended during the set-up ${times} times in a row (list_runs shows when). Correct the script with configure_sandbox.`;
export const setUpRestoredText = (savedAt: number) =>
  `The sandbox starts from the result of its set-up, saved at ${shownTime(savedAt)}: the script did not run again.`;

const SETUP_FAILURES: Partial<Record<RunView["state"], string>> = {
  timed_out: "took too long and was stopped",
  cancelled: "was cancelled",
};

/** @param end the end of the set-up's output */
export function setUpFailedText({ id, state, exitCode }: RunView, end: string | undefined): string {
  const how = SETUP_FAILURES[state] ?? `failed with exit code ${exitCode}`;
  const output = `Its output (get_result, id ${id})${end ? ` ends: ${toVisibleJSON(end)}` : " says why"}.`;
  return `The set-up of this sandbox ${how}, so calls run without it. ${output} Correct the script with configure_sandbox.`;
}

export const SETTINGS_CHANGED = "the sandbox's network or variables were changed meanwhile";

export const SET_UP_UNDER_WAY = "its set-up was changing files, and nothing is saved until that ends";

export const stillSettingUp = (sandbox: string, run: string | undefined, ms: number) =>
  temporary(
    "no_answer",
    `The set-up of sandbox ${sandbox} still runs after ${ms / 1000} s. This call was not started.`,
    run === undefined
      ? RETRY_IN_10_SECONDS
      : `Wait for it with get_result, id ${run}, then make the same call again.`,
  );

// Notices about stops

/** The planned ends of a container. All other ends are UNPLANNED. */
export const ENDINGS = {
  idle: "The sandbox was stopped because it was idle",
  unsaved_idle: "The sandbox was stopped because it was idle, although not everything could be saved",
  room: "The idle sandbox was stopped to make room for another of your sandboxes",
  unsaved_room:
    "The idle sandbox was stopped to make room for another of your sandboxes, although not everything could be saved",
  server: "The sandbox was stopped together with the server",
  unsaved_server: "The sandbox was stopped together with the server",
  // Not "was restored": if the checkpoint was deleted meanwhile, the sandbox keeps its state.
  back: "The sandbox was stopped to restore a checkpoint",
  unsaved_back: "The sandbox was stopped to restore a checkpoint",
  network: "The sandbox was stopped to restrict its network",
  unsaved_network: "The sandbox was stopped to restrict its network",
  platform: "The platform replaced the sandbox's container",
} as const;

const UNPLANNED = "The sandbox was restarted";

/** The error for a call whose container is ended because it started with more network access than the policy now allows. */
export const endedForNetwork = () =>
  new EndingError("sandbox_restarted", `${ENDINGS.network}.`, "Make the same call again.", true);
const endingText = (ending: string) => ENDINGS[ending as keyof typeof ENDINGS] ?? UNPLANNED;
export const lostText = (ending: string) =>
  `${endingText(ending)}: its files, processes and variables are gone.`;

/** Between two notices of restarts. */
export const LATER = " Later: ";

/**
 * @param ending how the previous container ended; undefined if there was none
 * @param isAllSaved whether all files were saved before that end
 */
export function restoredText(
  {
    savedAt,
    files,
    bytes,
    left,
    dropped,
  }: {
    savedAt: number;
    files: number;
    bytes: number;
    left?: LeftOut | undefined;
    dropped?: NamedFiles | undefined;
  },
  ending: string | undefined,
  isAllSaved: boolean,
): string {
  const savedFiles = `as saved at ${shownTime(savedAt)} (${savedSize(files, bytes)})`;
  const missing =
    (left ? ` Not saved, so missing: ${leftOutText(left)}.` : "") +
    (dropped ? ` ${droppedText(dropped)}` : "");
  if (ending === undefined) return `The sandbox starts with its files ${savedFiles}.${missing}`;
  const gone = isAllSaved
    ? "Processes and variables are gone."
    : "Processes, variables and any later changes are gone.";
  return `${endingText(ending)}: its files are ${savedFiles}. ${gone}${missing}`;
}

/** Files that were saved with another image and cannot be restored. */
function droppedText({ count, names }: NamedFiles): string {
  const more = count > NAMED ? ` and ${count - NAMED} more` : "";
  return `Not restored, because the image has changed: ${shownNames(names)}${more}. Install them again.`;
}

const shownNames = (paths: readonly string[]) => firstNames(paths).map(shownName).join(", ");

/** The files that a save left out, as a clause. */
function leftOutText({ count, bytes, names, unreadable, special, crowded }: LeftOut): string {
  const parts: string[] = [];
  if (count > 0)
    parts.push(`${count} files beyond WORKSPACE_MAX_MB, ${MiB(bytes)} MB together (${shownNames(names)})`);
  if (crowded) parts.push(`directories with more files than can be saved (${shownNames(crowded.names)})`);
  if (unreadable) parts.push(`${unreadable.count} unreadable files (${shownNames(unreadable.names)})`);
  if (special) parts.push(`${special.count} sockets, pipes and devices (${shownNames(special.names)})`);
  return parts.join("; ");
}

/** @param why the reason and what to do, if only the caller can fix it */
export function notSavedText(since: number, why?: { reason: string; hint: string }): string {
  const [because, advice] = why ? [` (${why.reason})`, ` ${why.hint}`] : ["", ""];
  return `The sandbox has not been saved since ${shownTime(since)}${because}: newer changes would be lost with its container.${advice}`;
}

export const partlySavedText = (left: LeftOut) =>
  `Not all of the sandbox is saved. These files would be lost with its container: ${leftOutText(left)}.`;

export const MAY_LACK_FILES =
  "The save may lack files, because programs renamed files or installed packages during it. Wait for these programs or stop them, " +
  "then make a checkpoint again.";

/** Like MAY_LACK_FILES, as a clause about the state before a restore, or about the result of a set-up. */
export const INCOMPLETE_SAVE =
  "programs renamed files or installed packages during its save, so files may be missing";

/** Notes for runs that ended because their container ended. */
export const LOST_NOTES = {
  lost: "The sandbox stopped during this run; its processes and variables are gone.",
  idle: "The idle sandbox was stopped before this run had ended.",
  unsaved_idle: "The idle sandbox was stopped before this run had ended.",
  room: "The idle sandbox was stopped before this run had ended, to make room for another.",
  unsaved_room: "The idle sandbox was stopped before this run had ended, to make room for another.",
  network: "The sandbox was stopped to restrict its network.",
  unsaved_network: "The sandbox was stopped to restrict its network.",
  back: "The sandbox was restored to a checkpoint during this run.",
  unsaved_back: "The sandbox was restored to a checkpoint during this run.",
  destroy: "The sandbox was destroyed during this run.",
} as const;

// Services

export const serviceRestarted = (id: string) =>
  `The sandbox's service was started again; get_result with id ${id} has its output.`;

/** For bash, which inserts the values. */
export const SERVICE_ENDED = "The service ended with exit code $code. It is started again in $pause s.";

// Workspaces that cannot be saved or restored

export const workspaceTooLarge = (left: Pick<Plan["left"], "count" | "crowded">, maxBytes: number) =>
  new ToolError(
    "too_large",
    left.count > 0
      ? `it is larger than the ${MiB(maxBytes)} MB of WORKSPACE_MAX_MB`
      : left.crowded
        ? "it has more files than can be saved"
        : "not all of it can be read",
  );

export const stillRestoring = (sandbox: string, ms: number) =>
  temporary(
    "no_answer",
    `Sandbox ${sandbox} is being restored, which takes longer than ${Math.round(ms / 1000)} s. This call was not started.`,
  );
export const stillSaving = (sandbox: string, ms: number) =>
  temporary(
    "no_answer",
    `Sandbox ${sandbox} is being saved, which takes longer than ${ms / 1000} s. Nothing was changed, and the save continues.`,
    "Make the same call again in 30 seconds: the parts saved until then are not saved again. If no call succeeds, destroy_sandbox deletes the sandbox but keeps its checkpoints, from which restore_sandbox makes it again.",
  );

export function restoreFailed(sandbox: string, { savedAt }: Snapshot, cause: unknown): ToolError {
  const error = temporary(
    "storage_unavailable",
    `Sandbox ${sandbox}, saved at ${new Date(savedAt).toISOString()}, could not be restored: ${reasonOf(cause)}. This call was not started, and the saved state is unchanged.`,
    "Make the same call again in a minute. If that fails too: restore_sandbox goes back to a checkpoint; destroy_sandbox deletes the sandbox with its saved files.",
  );
  error.cause = cause;
  return error;
}

/** Errors that repeat until the workspace or the principal's limit changes. */
const LASTING: ReadonlySet<ErrorCode> = new Set([
  "too_large",
  "no_space",
  "quota_exceeded",
  "file_system",
  "damaged",
]);

/** Whether a failed save will fail again until the caller changes something. */
export function isPermanentSaveError(cause: unknown): cause is ToolError {
  return cause instanceof ToolError && LASTING.has(cause.code);
}

export function saveFailed(sandbox: string, cause: unknown): ToolError {
  const message = `Sandbox ${sandbox} could not be saved: ${reasonOf(cause)}. The sandbox continues to run, and the earlier save is intact.`;
  const error = isPermanentSaveError(cause)
    ? new ToolError(
        cause.code,
        message,
        cause.hint ||
          "Delete files that are not needed. restore_sandbox goes back to a checkpoint even without a save.",
      )
    : temporary("storage_unavailable", message, "Make the same call again in a minute.");
  error.cause = cause;
  return error;
}

export function reasonOf(cause: unknown): string {
  if (cause instanceof StorageError) return "the storage does not respond";
  if (cause instanceof ToolError) return cause.message.replace(/\.$/, "");
  return "the server had an internal error (details are in its log)";
}
