/** Texts about containers, kernels, files and refused connections. */
import { type FileFailure, WORKSPACE } from "../../container/sandboxd/shapes.ts";
import {
  type ErrorCode,
  EndingError,
  ToolError,
  SANDBOX_STOPPED,
  SANDBOX_STOPPED_HINT,
  ending,
  exhausted,
} from "../shared/errors.ts";
import type { Language } from "../shared/languages.ts";
import { shownName, toVisibleJSON } from "../shared/shown.ts";
import { clause } from "../shared/text.ts";

export const containerGone = () =>
  new ToolError("sandbox_restarted", SANDBOX_STOPPED, SANDBOX_STOPPED_HINT, true);

/** Like `containerGone`, for a container that certainly ended. `containerGone` may also mean a broken connection. */
export const containerEnded = () =>
  new EndingError("sandbox_restarted", SANDBOX_STOPPED, SANDBOX_STOPPED_HINT, true);

/** Clauses for `damaged`, for a response that breaks the protocol. Another program in the sandbox may have sent it. */
export const DAMAGED = {
  controlServer: "its control server does not respond as it should; another program may be in its place",
  sandboxd: "the server's program there does not respond as it should; another program may be in its place",
  kernel: (language: Language, detail: string) =>
    `its ${language} kernel does not start (${detail ? toVisibleJSON(detail) : "no message"})`,
};

export const inputUnconfirmed = () =>
  new ToolError(
    "connection_lost",
    "The sandbox did not confirm the text, so the server does not know whether it was typed.",
    "Look at the output with get_result, then type what is missing.",
  );
export const foreignListCursor = () =>
  new ToolError("invalid_argument", "The cursor is not from an answer of list_files.", "Leave out cursor.");

// Kernels

/** Beginnings of the message of `ending`: what happened to code in a container that is being replaced. */
export const NOT_RUN = "The code was not run";
export const STOPPED = "The code was stopped during its run";

export const KERNEL_MALFORMED =
  "The kernel did not respond as it should; use another context for a fresh kernel.";
export const noInterpreter = (language: Language) =>
  new ToolError(
    "language_unavailable",
    `This server's sandboxes have no ${language} interpreter.`,
    "Use another language of run_code, or run_command.",
  );
export const kernelWithoutSpace = (language: Language) =>
  new ToolError(
    "no_space",
    `The ${language} kernel could not start: the sandbox's disk is full (No space left on device).`,
    "Delete files with run_command or, if that fails too, with run_code in javascript. Then run the code again; or use destroy_sandbox.",
  );
export const kernelNotStarted = (language: Language, detail: string) =>
  new ToolError(
    "language_unavailable",
    `The ${language} kernel did not start: ${toVisibleJSON(clause(detail))}.`,
    "Use run_command to check whether the disk is full, and the files and variables that run code when the interpreter starts (usercustomize.py, sitecustomize.py, NODE_OPTIONS), or use destroy_sandbox and start again.",
  );

// Saves and restores: reasons, as clauses

export const DISK_FULL = "the disk of the sandbox is full";
export const SAVE_LOST = "the sandbox lost the save that was in progress";
export const stateDamaged = () =>
  new ToolError(
    "damaged",
    "the saved state is damaged: its content has changed in the storage, or a program in the sandbox has saved it so",
  );
/** @param key the missing or truncated object, for the log */
export function statePartMissing(key: string): ToolError {
  const error = new ToolError("damaged", "the saved state is damaged: the storage has lost a part of it");
  error.cause = new Error(`${key} is missing or too short`);
  return error;
}
export const stepFailed = (code: string) => `the sandbox reported error ${code}`;
export const tooManyEntries = (max: number) =>
  `it has more than ${max} files and directories, or their names and links are too long`;

// Texts that programs in a sandbox read

export const INTERNET_TEXTS = {
  refused: (host: string) => `${host || "this host"} is not reachable from this sandbox`,
  unreachable: (host: string) => `${host} could not be reached`,
  tooMany: "this sandbox has too many open requests to the internet",
  partial: (host: string) => `${host} sent a partial response although no range was requested`,
  coding: (host: string, coding: string) =>
    `${host} sent its response with a content encoding that this server cannot search for secrets: ${coding}`,
};

export const MODEL_API_TEXTS = {
  refused: (method: string, path: string) => `${method} ${path} is not allowed from a sandbox.`,
  noCredential: "The server has no credential for this API any more.",
  unreachable: "The API cannot be reached from the server.",
  reaches: (what: string | undefined) =>
    `The API may not connect to ${what ?? "hosts"} for this sandbox: the sandbox's network policy forbids it.`,
  tooLarge: (max: number) => `The request is larger than ${max} bytes, the API's limit.`,
  noReason: "no reason given",
};

// Errors of operations on files

/** @param doing the operation, as the beginning of a sentence */
export const invalidParameters = (doing: string) =>
  new ToolError("invalid_argument", `${doing} failed: its parameters are not valid.`);
const parentOf = (path: string) => path.slice(0, path.lastIndexOf("/")) || "/";
const missingError = (path: string, hint: string) =>
  new ToolError("not_found", `There is no ${shownName(path)}.`, hint);

function describeNearest(path: string, { directory = parentOf(path), elsewhere }: FileFailure): string {
  if (elsewhere !== undefined)
    return `Use path ${shownName(elsewhere)}: paths are relative to /workspace, not to a session's directory.`;
  // list_files needs no path for /workspace.
  if (directory === WORKSPACE && directory === parentOf(path)) return "Use list_files.";
  const use = `Use list_files with path ${shownName(directory)}`;
  return directory === parentOf(path) ? `${use}.` : `${use}, the nearest directory that exists.`;
}

/** The hint for file names with bytes that are shown as U+FFFD. */
export const NOT_UTF8 =
  "A name with \uFFFD is not UTF-8, and no path reaches its file. Rename the file with run_command (mv caf*.txt cafe.txt); an archive of its directory (file_link) keeps the name.";
const directoryError = (path: string) =>
  new ToolError("is_directory", `${shownName(path)} is a directory.`, "list_files shows its files.");
const specialFileError = (path: string) =>
  new ToolError(
    "invalid_argument",
    `${shownName(path)} is a device, socket or pipe, not a file.`,
    "Use run_command.",
  );

function outsideError(path: string, leadsTo: string): ToolError {
  const name = shownName(path);
  const where = leadsTo === path || leadsTo === "" ? name : `${name}, which leads to ${shownName(leadsTo)},`;
  return new ToolError(
    "permission_denied",
    `Nothing was written: ${where} is outside /workspace and /tmp, so writing it needs the scope sandbox:exec, which your token lacks.`,
    "Use a path under /workspace or /tmp.",
  );
}

const MAKE_SPACE = "Nothing was changed. Delete files that you no longer need, then write again.";
const FILE_IN_PATH = "A part of the path is a file: use list_files to see which.";

const REASONS: Record<string, readonly [words: string, code: ErrorCode, hint: string] | undefined> = {
  ENOSPC: ["No space left on device", "no_space", MAKE_SPACE],
  EDQUOT: ["Disk quota exceeded", "no_space", MAKE_SPACE],
  EACCES: ["Permission denied", "permission_denied", "Use a path under /workspace."],
  EPERM: ["Operation not permitted", "permission_denied", "Use a path under /workspace."],
  EROFS: [
    "Read-only file system",
    "permission_denied",
    "This directory is mounted read-only: write to another, such as /workspace or /tmp.",
  ],
  ENOTDIR: ["Not a directory", "not_directory", FILE_IN_PATH],
  EEXIST: ["File exists", "not_directory", FILE_IN_PATH],
  ENAMETOOLONG: [
    "File name too long",
    "invalid_argument",
    "Use a shorter name: 255 bytes at most for each part.",
  ],
  ELOOP: [
    "Too many levels of symbolic links",
    "invalid_argument",
    "Links on the path lead to each other: use list_files to see which.",
  ],
  EILSEQ: [
    "The name of the file that the link names is not valid UTF-8",
    "invalid_argument",
    "Use run_command to rename that file, or to replace the link.",
  ],
  ENOENT: ["No such file or directory", "file_system", ""],
  EBUSY: ["Device or resource busy", "file_system", ""],
  EIO: ["Input/output error", "file_system", ""],
};

const EXHAUSTED = new Set(["EAGAIN", "ENOMEM", "EMFILE", "ENFILE"]);

/** The error for a refusal of sandboxd. @param doing the operation, as the beginning of a sentence */
export function refusal(doing: string, path: string, failure: FileFailure): ToolError {
  const failed = `${[doing, path && shownName(path)].filter(Boolean).join(" ")} failed`;
  const { problem, code = "", path: leadsTo = "", edit = 0, count = 0, lines = [], nearest = "" } = failure;
  switch (problem) {
    case "missing":
      return missingError(path, path.includes("\uFFFD") ? NOT_UTF8 : describeNearest(path, failure));
    case "directory":
      return directoryError(path);
    case "not_directory":
      return new ToolError(
        "not_directory",
        `${shownName(path)} is a file, not a directory.`,
        "Use read_file.",
      );
    case "special":
      return specialFileError(path);
    case "outside":
      return outsideError(path, leadsTo);
    case "too_large":
      return new ToolError("too_large", `${failed}: the file is too large.`, "Use run_command for it.");
    case "cut":
      return new ToolError(
        "connection_lost",
        `${failed}: the upload ended early. Nothing was written.`,
        "Send it again.",
      );
    case "form":
      return new ToolError(
        "invalid_argument",
        `${failed}: the form must contain exactly one file. Nothing was written.`,
        "Send one file, or its bytes by PUT.",
      );
    case "ending":
      return ending(`${failed}: nothing was changed`);
    case "not_text":
      return new ToolError("invalid_argument", `${failed}: the file is not UTF-8 text.`, "Use run_command.");
    case "line_breaks":
      return new ToolError(
        "invalid_argument",
        `Nothing was written: old_text of edit ${edit} is in the file with other line breaks.`,
        `Its lines end with ${code === "CRLF" ? "\\r\\n" : "\\n"}: use that in old_text and new_text.`,
      );
    case "absent":
      return new ToolError(
        "invalid_argument",
        `Nothing was written: old_text of edit ${edit} is not in the file. The most similar line is ${lines[0]}: ${JSON.stringify(nearest)}.`,
        `Copy the text exactly: read_file with offset ${Math.max(1, (lines[0] ?? 1) - 5)}.`,
      );
    case "repeated":
      return new ToolError(
        "invalid_argument",
        `Nothing was written: old_text of edit ${edit} is in the file ${count} times, on lines ${lines.join(", ")}${count > lines.length ? " and more" : ""}.`,
        "Add surrounding text, or use all=true.",
      );
    case "no_program":
      return new ToolError(
        "file_system",
        `${failed}: the program that makes archives is missing in the sandbox.`,
        "A .zip needs python3, and a .tar.gz needs tar: use the other format.",
      );
    case "system": {
      if (EXHAUSTED.has(code)) return exhausted();
      const [words, kind, hint] = REASONS[code] ?? [`system error ${code}`, "file_system", ""];
      return new ToolError(kind, `${failed}: ${words}.`, hint);
    }
  }
}
