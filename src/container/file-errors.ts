/** Errors of operations on files, in words: what failed, why, and the next call. */
import { WORKSPACE } from "../../container/sandboxd/shapes.ts";
import type { FileFailure } from "../../container/sandboxd/shapes.ts";
import { type ErrorCode, ToolError, ending, exhausted } from "../shared/errors.ts";
import { shownName } from "../shared/shown.ts";

function parent(path: string): string {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

function missing(path: string, hint: string): ToolError {
  return new ToolError("not_found", `There is no ${shownName(path)}.`, hint);
}

/** What exists near a missing path. */
function describeNearest(path: string, { directory = parent(path), elsewhere }: FileFailure): string {
  if (elsewhere !== undefined)
    return `It is ${shownName(elsewhere)}: paths are relative to /workspace, not to a session's directory.`;
  // The default of list_files.
  if (directory === WORKSPACE && directory === parent(path)) return "Use list_files.";
  const use = `Use list_files with path ${shownName(directory)}`;
  return directory === parent(path) ? `${use}.` : `${use}, the nearest directory that exists.`;
}

/** What to do about names with bytes shown as U+FFFD. */
export const NOT_UTF8 =
  "A name with \uFFFD is not UTF-8, and no path reaches it. Rename it with run_command (mv caf*.txt cafe.txt); an archive of its directory (file_link) has it as it is.";

function isDirectory(path: string): ToolError {
  return new ToolError(
    "is_directory",
    `${path} is a directory.`,
    "Give the path of a file in it; list_files shows them.",
  );
}

function isSpecial(path: string): ToolError {
  return new ToolError(
    "invalid_argument",
    `${path} is a device, socket or pipe, not a file.`,
    "Use run_command.",
  );
}

function isOutside(path: string, leadsTo: string): ToolError {
  const where = leadsTo === path || leadsTo === "" ? path : `${path}, which leads to ${leadsTo},`;
  return new ToolError(
    "permission_denied",
    `Nothing was written: ${where} may hold programs that others run, so writing it needs the scope sandbox:exec, which your token lacks.`,
    "Use a path under /workspace or /tmp.",
  );
}

const MAKE_SPACE = "Delete files you no longer need, then write again: nothing was changed.";
const FILE_IN_PATH = "A part of the path is a file: use list_files to see which.";

/** The meaning and remedy of each system error code. */
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
  ENOENT: ["No such file or directory", "file_system", ""],
  EBUSY: ["Device or resource busy", "file_system", ""],
  EIO: ["Input/output error", "file_system", ""],
};

/** Error codes for a lack of memory, processes or open files. */
const EXHAUSTED = new Set(["EAGAIN", "ENOMEM", "EMFILE", "ENFILE"]);

/** The error for a refusal of sandboxd. @param failed what failed, as a sentence */
export function refusal(failed: string, path: string, failure: FileFailure): ToolError {
  const { problem, code = "", path: leadsTo = "", edit = 0, count = 0, lines = [], nearest = "" } = failure;
  switch (problem) {
    case "missing":
      return missing(path, path.includes("\uFFFD") ? NOT_UTF8 : describeNearest(path, failure));
    case "directory":
      return isDirectory(path);
    case "not_directory":
      return new ToolError("not_directory", `${path} is a file, not a directory.`, "Use read_file.");
    case "special":
      return isSpecial(path);
    case "outside":
      return isOutside(path, leadsTo);
    case "too_large":
      return new ToolError("too_large", `${failed}: it is too large.`, "Use run_command for it.");
    case "cut":
      return new ToolError(
        "connection_lost",
        `${failed}: it ended early. Nothing was written.`,
        "Send it again.",
      );
    case "form":
      return new ToolError(
        "invalid_argument",
        `${failed}: the form does not hold one file. Nothing was written.`,
        "Send one file, or its bytes by PUT.",
      );
    case "ending":
      return ending(`${failed}: nothing was changed`);
    case "not_text":
      return new ToolError("invalid_argument", `${failed}: it is not UTF-8 text.`, "Use run_command.");
    case "line_breaks":
      return new ToolError(
        "invalid_argument",
        `Nothing was written: old_text of edit ${edit} is in the file with other line breaks.`,
        `Its lines end with ${code === "CRLF" ? "\\r\\n" : "\\n"}: use that in old_text and new_text.`,
      );
    case "absent":
      return new ToolError(
        "invalid_argument",
        `Nothing was written: old_text of edit ${edit} is not in the file. Nearest is line ${lines[0]}: ${JSON.stringify(nearest)}.`,
        `Copy the text exactly: read_file with offset ${Math.max(1, (lines[0] ?? 1) - 5)}.`,
      );
    case "repeated":
      return new ToolError(
        "invalid_argument",
        `Nothing was written: old_text of edit ${edit} is in the file ${count} times, on lines ${lines.join(", ")}${count > lines.length ? " and more" : ""}.`,
        "Add surrounding text, or set all to replace each.",
      );
    case "system": {
      if (EXHAUSTED.has(code)) return exhausted();
      const [words, kind, hint] = REASONS[code] ?? [`the system says ${code}`, "file_system", ""];
      return new ToolError(kind, `${failed}: ${words}.`, hint);
    }
  }
}
