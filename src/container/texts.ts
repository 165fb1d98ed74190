/** What the way into a sandbox says: lost containers, kernels, and refused connections. file-errors.ts has the errors about files. */
import { ToolError, WENT_AWAY, WENT_AWAY_HINT } from "../shared/errors.ts";
import type { Language } from "../shared/languages.ts";
import { clause } from "../shared/text.ts";

export function containerGone(): ToolError {
  return new ToolError("sandbox_restarted", WENT_AWAY, WENT_AWAY_HINT, true);
}

/** Responses that break the protocol, for `damaged`: a program in the sandbox may have sent them. */
export const DAMAGED = {
  controlServer: "its control server does not answer as it should; something else may be in its place",
  sandboxd: "the server's program in it does not answer as it should; something else may be in its place",
  kernel: (language: Language, detail: string) =>
    `its ${language} kernel does not start (${detail || "it says nothing"})`,
};

export function inputUnconfirmed(): ToolError {
  return new ToolError(
    "connection_lost",
    "The connection to the sandbox broke: whether the text was typed is not known.",
    "Look at the output with get_result, then type what is missing.",
  );
}

export function foreignListCursor(): ToolError {
  return new ToolError(
    "invalid_argument",
    "The cursor is not from an answer of list_files.",
    "Leave it out.",
  );
}

// Kernels

/** For `ending`: what happened to code in a container that is replaced. */
export const NOT_RUN = "The code was not run";
export const STOPPED = "The code was stopped while it ran";

export const KERNEL_MALFORMED =
  "The kernel did not answer as it should; use another context for a fresh one.";

export function noInterpreter(language: Language): ToolError {
  return new ToolError(
    "language_unavailable",
    `This server's sandboxes have no ${language} interpreter.`,
    "Use another language of run_code, or run_command.",
  );
}

/** @param detail the interpreter's own message */
export function kernelNotStarted(language: Language, detail: string): ToolError {
  return new ToolError(
    "language_unavailable",
    `The ${language} kernel did not start: ${clause(detail)}.`,
    "Look with run_command at what runs when the interpreter starts (usercustomize.py, sitecustomize.py, NODE_OPTIONS), or use destroy_sandbox and start again.",
  );
}

// Saves and restores: reasons, as clauses

export const DISK_FULL = "the disk of the sandbox is full";
export const SAVE_LOST = "the sandbox lost the save that was in progress";
export const STATE_NOT_READ =
  "its container cannot read it, which happens for some minutes while a new version of the server is rolled out";

export function tooManyEntries(most: number): string {
  return `it has more than ${most} files and directories, or their names and links are too long`;
}

// What programs in a sandbox read

export const INTERNET_TEXTS = {
  refused: (host: string) => `${host || "this host"} is not reachable from this sandbox`,
  unreachable: (host: string) => `${host} could not be reached`,
  partial: (host: string) => `${host} sent a partial response to a request for the whole`,
  coding: (host: string, coding: string) =>
    `${host} sent its response in a coding that this server cannot search for secrets: ${coding}`,
};

export const MODEL_API_TEXTS = {
  refused: (method: string, path: string) => `${method} ${path} is not let through from a sandbox.`,
  noCredential: "The server has no credential for this API any more.",
  unreachable: "The API cannot be reached from the server.",
  reaches: (what: string | undefined) =>
    `This sandbox's network policy does not let the API connect to hosts for it: ${what} was refused.`,
  tooLarge: (max: number) => `The request is larger than ${max} bytes, which is all that the API takes.`,
  noReason: "no reason given",
};
