/** Texts of resources: titles, descriptions, and errors of reading. */
import { ToolError } from "../shared/errors.ts";
import { fileURI, runURI } from "../shared/resource-uri.ts";
import { shownName } from "../shared/shown.ts";

export const ABOUT_RUNS = {
  title: "Output of a run",
  description: "The log of a run (log), or a file that a task left (artifacts/<path>).",
};
export const ABOUT_FILES = {
  title: "File of a sandbox",
  description: "A file or directory: relative to /workspace, or absolute after a second slash.",
};
export const NO_PAGE = "The cursor is not from an earlier page of resources. List again without a cursor.";
export const aboutTask = (startedAt: number) =>
  `The log and the artifacts of the task that started at ${new Date(startedAt).toISOString()}.`;
export const aboutWorkspace = (sandbox: string, isRunning: boolean) => ({
  title: `Workspace of ${sandbox}`,
  description: isRunning ? "A directory." : "A directory of a stopped sandbox.",
});

export const logOf = (id: string) => `The log of ${id}`;

/** @param max the most bytes of a resource @param next the next call, as a clause */
export const tooLarge = (what: string, size: number, max: number, next: string) =>
  new ToolError(
    "too_large",
    `${what} has ${size} bytes; a resource may have at most ${max} bytes.`,
    `${next}.`,
  );

export const INSTEAD = {
  ofFile: (path: string, sandbox: string) =>
    `file_link with path ${shownName(path)} and sandbox ${sandbox} gives a URL for the whole file`,
  ofLog: (id: string) =>
    `get_result with id ${id} and cursor 0 reads it page by page, and gives a URL for the whole log`,
  ofArtifact: (id: string, path: string) =>
    `get_result with id ${id} and artifact ${shownName(path)} reads it in parts, and gives a URL for the whole file`,
};
export const nothingOfName = (run: string, name: string) =>
  new ToolError("not_found", `${run} has no ${shownName(name)}.`, `${runURI(run, "")} lists its files.`);
export const absolutePathText = (sandbox: string, meant: string) =>
  `Paths are relative to /workspace: ${shownName(meant)} is ${fileURI(sandbox, meant)}.`;
