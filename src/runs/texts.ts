/** Texts about runs: how a run ended, and why it does not accept input. */
import { type Failure, ToolError } from "../shared/errors.ts";
import { shownName, toVisibleJSON } from "../shared/shown.ts";
import { clause } from "../shared/text.ts";
import type { CodeOutcome } from "../container/kernels/kernel-protocol.ts";

// The end of a run

export const CANCELLED_TEXT = "Cancelled before it started.";
export const NOT_STARTED_SERVER_RESTARTED =
  "The run never started, because the server was restarted first. Run it again.";
export const NOT_STARTED_SANDBOX_STOPPED =
  "The run never started, because the sandbox stopped first. Run it again.";
export const SANDBOX_STOPPED_WHILE_SERVER_DOWN =
  "The sandbox stopped while the server was down; its processes and variables are gone.";
export const OTHER_VERSION = "The server was restarted with another version, which cannot resume this run.";

const UNCONFIRMED =
  "the sandbox did not confirm that the run ended. The run's processes may still run, and its last output may be missing. destroy_sandbox ends the processes.";

/** @param graceMs how long the server waited for the sandbox */
export const cancelUnconfirmed = (graceMs: number) =>
  `The server told the run to stop, but within ${graceMs / 1000} s ${UNCONFIRMED}`;

export function timeoutUnconfirmed(timeoutMs: number, graceMs: number): string {
  const time = `longer than ${timeoutMs / 1000} s`;
  return `The run took ${time}, so the server told it to stop, but within ${graceMs / 1000} s ${UNCONFIRMED}`;
}

/**
 * The note of a run that ended with an error. If the run may have begun, the note has no hint to repeat it, because its effects
 * could then happen twice.
 */
export const failureNote = ({ code, message, hint }: Failure, mayRun: boolean) =>
  [message, mayRun || code === "no_answer" ? MAY_RUN : hint].filter(Boolean).join(" ");
const MAY_RUN =
  "It is unknown how far the run got, and its processes may still run. Look with run_command (ps, ls) before you repeat it; if the sandbox no longer responds, use destroy_sandbox and start again.";

// Commands

/** A process may have detached from its run: see docs/reference/runs.md. */
export const CANCELLED_WITH_ALL = "Cancelled, with all its known processes.";

const DIED = "the code or another program ended its process, or the memory was used up";

/** @param cut why the run had less time than requested */
export function timedOutText(timeoutMs: number, cut: string | undefined): string {
  const after = cut ? "" : ` after ${timeoutMs / 1000} s`;
  const next = cut ?? "Raise timeout_seconds, or run it in the background.";
  return `Stopped${after}, with all its known processes. ${next}`;
}

export const NEVER_RAN =
  "The sandbox has no record of the command. Either the server was restarted before the command ran, or the record was deleted. Run it again.";
export const REMOVED =
  "The command's result is lost: its record in the sandbox was deleted during the run. Run the command again if that is safe.";
export const OUTPUT_CUT = "Some output may be missing: the process that saves it was killed in the sandbox.";
export const OUTPUT_NO_SPACE =
  "Some output is missing: the sandbox's disk was full. Delete files, or redirect output to /dev/null.";
export const KEEPER_KILLED =
  "The exit status is unknown, so 137 is reported: the command's parent process was killed inside the sandbox (SIGKILL).";
export const noTerminal = (why: string) =>
  new ToolError(
    "not_configured",
    `This sandbox cannot run a command in a terminal: ${toVisibleJSON(clause(why))}.`,
    "Run it without interactive and give its input in stdin, or install util-linux (on Debian and Ubuntu bsdutils).",
  );
export const noDirectory = (path: string) =>
  new ToolError(
    "not_found",
    `The command was not run, because its cwd ${shownName(path)} is not a directory.`,
    "Use another cwd, or create the directory first (mkdir -p).",
  );

// Code

const KERNEL_STATE: Record<CodeOutcome["state"], string> = {
  kept: "Variables and imports are kept.",
  lost: "Variables and imports are lost; the next call starts a fresh kernel.",
};

const kernelName = (language: string, context: string) =>
  context === "default" ? `The ${language} kernel` : `The ${language} kernel ${context}`;
const LOST_RESULT = "The server was restarted while the code ran, so its result is lost.";

export function handoverTexts(language: string, context: string) {
  const kernel = kernelName(language, context);
  return {
    idle: `${LOST_RESULT} The code has finished since. ${KERNEL_STATE.kept}`,
    interrupted: `${LOST_RESULT} ${kernel} was interrupted. ${KERNEL_STATE.kept}`,
    killed: `${LOST_RESULT} ${kernel} was stopped. ${KERNEL_STATE.lost}`,
  };
}

export const freshKernelText = ({ language, context }: { language: string; context: string }) =>
  `${kernelName(language, context)} had ended, so the code ran in a fresh one: earlier variables and imports are lost.`;

/** @param cut why the run had less time than requested */
export function codeEndText(
  { end, state, hasStarted, cause }: Pick<CodeOutcome, "end" | "state" | "hasStarted" | "cause">,
  {
    language,
    context,
    timeoutMs,
    cut,
  }: { language: string; context: string; timeoutMs: number; cut?: string },
): string | undefined {
  const kernel = kernelName(language, context);
  const isLostBeforeStart = !hasStarted && state === "lost";
  const because = cut ? ` ${cut}` : "";
  switch (end) {
    case "timeout":
      return isLostBeforeStart
        ? `${kernel} did not start within ${timeoutMs / 1000} s: the code never ran.${because}`
        : `${kernel} was ${state === "kept" ? "interrupted" : "stopped"} after ${timeoutMs / 1000} s.${because} ${KERNEL_STATE[state]}`;
    case "cancelled":
      if (hasStarted) return `${kernel} was interrupted. ${KERNEL_STATE[state]}`;
      return isLostBeforeStart
        ? "Cancelled while its kernel was starting: the code never ran."
        : CANCELLED_TEXT;
    case "died":
      return `${kernel} died: ${cause ?? DIED}. ${KERNEL_STATE[state]}`;
    default:
      return undefined;
  }
}

export const NOT_DELIVERED =
  "Some of its output or images may be missing: the code has ended, but the sandbox did not deliver them in time.";

/** @param path the file of a left-out image */
export const resultLeftOut = (bytes: number, path?: string) => {
  const file = path === undefined ? "" : `. Its file is ${path}`;
  return `[a result of ${bytes} bytes is left out: the results before it use all the space${file}]`;
};
export const htmlLeftOut = (bytes: number) =>
  `A result's html of ${bytes} bytes is left out: the other results use all the space.`;
export const imageLeftOut = (problem: string, remedy: string) =>
  `[An image is left out: it ${problem} ${remedy}]`;
export const imageFileAt = (path: string, remedy: string) => `${remedy} Its file is ${path}.`;
export const NOT_MADE_SMALLER = {
  problem: "is too large to be shown as it is, and the sandbox did not make it smaller.",
  remedy: "Show it with fewer pixels: a lower dpi, or PIL's image.thumbnail((1000, 1000)).",
};

export const IMAGE_NOT_DELIVERED = {
  problem: "was not delivered in time.",
  remedy: "Show it again in another call.",
};

export const charactersOmitted = (omitted: number, all: number) =>
  `[... ${omitted} of ${all} characters omitted: write the value to a file ...]`;

// Input and logs

export const notInteractive = (id: string) =>
  new ToolError(
    "invalid_argument",
    `${id} takes no input: it does not run in a terminal.`,
    "Use run_command with interactive or stdin.",
  );
export const hasEnded = (id: string) =>
  new ToolError(
    "invalid_argument",
    `${id} takes no input: it has ended.`,
    "get_result with this id says how it ended; run_command starts it again.",
  );
export const hasNotStarted = (id: string) =>
  new ToolError(
    "invalid_argument",
    `${id} takes no input yet: it waits for its turn.`,
    `get_result, id ${id}, says what it waits for.`,
    true,
  );
export const notTyped = (id: string, typed: number, size: number) =>
  new ToolError(
    "too_large",
    `Only ${typed} of ${size} bytes were typed into ${id}: the program does not read, and its buffer is full.`,
    `Look at its output with get_result, id ${id}; type the rest when the program reads input again, or stop it with cancel_run.`,
    true,
  );

export function logUnreadable(runID: string, cause: unknown): ToolError {
  const error = new ToolError(
    "storage_unavailable",
    `This part of the log of ${runID} cannot be read now: its storage did not respond. Nothing is lost.`,
    "Make the same call again in a minute.",
    true,
  );
  error.cause = cause;
  return error;
}

export const stillRunning = (id: string) =>
  new ToolError("invalid_argument", `${id} is still running.`, "Stop it with cancel_run first.");
