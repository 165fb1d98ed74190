/** The panel's sentences: errors, questions, and notes in place of content. Labels are in the components' markup. */
import { size } from "./format.ts";

// Errors

export const BUSY = "The server is busy. Try again in a moment.";
export const UNREACHABLE = "The server cannot be reached. Check that it runs, and that your network works.";
export const STILL_SIGNED_IN = "You are still signed in: the server did not respond. Try again.";
export const NOT_PASSED_ON = "The client that shows this page did not send the call to the server.";
export const NO_TOOLS =
  "The client that shows this page does not let the page call tools, so the page has nothing to show. Open /panel on the server instead.";
export const FILE_CHANGED = "The file changed while it was read. Open it again.";
export const NO_ARTIFACT_LINK = "This file cannot be saved, because the server gave no link to it.";
export const statusText = (status: number) => `The server responded with status ${status}.`;
export const notOpened = (url: string) => `The client that shows this page did not open ${url}`;
export const uploadBroke = (name: string) => `The connection broke: ${name} was not written. Try again.`;
export const uploadStopped = (name: string) => `Stopped: ${name} was not written.`;
export const pasteTooLong = (most: number) =>
  `The text is longer than ${most} characters: upload it as a file.`;

// Questions

export const OVERWRITE = "The file has changed since you opened it. Replace it by your version?";
export const deleteQuestion = (name: string) =>
  `Delete the sandbox ${name}, with all files and programs in it? Its checkpoints stay.`;
export const restoreQuestion = (name: string, time: string) =>
  `Restore ${name} as it was at ${time}? Running programs end. The current state is saved as a checkpoint first.`;
export const pasteQuestion = (lines: number, shown: string) =>
  `Paste ${lines} lines? Each line is entered as if you pressed Enter.\n\n${shown}`;

// Outcomes

export const CHECKPOINT_SAVED = "The checkpoint is saved.";
export const uploadedText = (to: string, names: readonly string[]) =>
  `Uploaded to ${to}: ${names.join(", ")}`;
export const portText = (port: number, isOpen: boolean) => `Port ${port} is ${isOpen ? "open" : "closed"}.`;
export const deletedText = (name: string) => `${name} is deleted.`;

// In place of content

export const LOADING = "Loading.";
export const LOADING_SANDBOXES = "Loading your sandboxes.";
export const LOADING_RUNS = "Loading the runs.";
export const LOADING_RUN = "Loading the run.";
export const NO_SANDBOXES = "Your sandboxes cannot be shown now.";
export const NO_RUNS = "Nothing was run yet.";
export const NO_RUNS_HERE = "Nothing was run here yet.";
export const NO_OUTPUT = "No output yet.";
export const NO_CHECKPOINTS = "No checkpoints yet.";
export const NEW_SANDBOX = "does not exist yet: the first command creates it";
export const NO_NAME_FOUND = "No file name contains this text.";
export const NO_FILE = "This file does not exist.";
export const NAME_NOT_UTF8 =
  "The file's name is not UTF-8, so it cannot be opened here. Rename it with a command, such as mv caf*.txt cafe.txt, or download its directory.";
export const MIXED_LINE_ENDS =
  "The file's lines end in different ways, so it cannot be edited here. Unify them with a command first, such as sed -i 's/\\r$//' <file>.";
export const onlyFirst = (bytes: number) => `Only the first ${size(bytes)} are shown.`;
export const outputLeftOut = (bytes: number) =>
  `[${bytes.toLocaleString("en")} bytes of the output are left out here]`;
export const notShown = (bytes: number) => `[${bytes} bytes are not shown: this page could not keep up.]`;
