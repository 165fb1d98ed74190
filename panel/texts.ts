/** The panel's sentences: errors, questions, and notes in place of content. Labels are in the components' markup. */
import type { ComponentChild, ComponentChildren } from "preact";
import { sentence } from "../src/shared/sentence.ts";
import { size } from "./format.ts";

// Errors

export const BUSY = "The server is busy. Try again in a moment.";
export const UNREACHABLE = "The server cannot be reached. Check that it runs, and that your network works.";
export const STILL_SIGNED_IN = "You are still signed in: the server did not respond. Try again.";
export const NOT_PASSED_ON =
  "The client that shows this page did not send the call to the server. Try again.";
export const NO_TOOLS =
  "The client that shows this page does not let the page call tools, so the page has nothing to show. Open /panel on the server instead.";
export const FILE_CHANGED = "The file changed while it was read. Open it again.";
export const NO_ARTIFACT_LINK = "This file cannot be saved, because the server gave no link to it.";
export const statusText = (status: number) => `The server responded with status ${status}.`;
export const notOpened = (url: string) =>
  `The client that shows this page did not open this address. Open it in a browser: ${url}`;
export const uploadBroke = (name: string) => `The connection broke: ${name} was not written. Try again.`;
export const uploadStopped = (name: string) => `Stopped: ${name} was not written.`;
export const pasteTooLong = (most: number) =>
  `The text is longer than ${most} characters: upload it as a file.`;

// Questions

export const OVERWRITE = "The file has changed since you opened it. Replace it with your version?";
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

// Explanations

export const SIGN_IN_FIRST = "Sign in to see your sandboxes, their runs and their files.";
export const COMMAND_KEYS = "Enter runs the command, Shift+Enter begins a new line";
export const TERMINAL_KEYS = "Ctrl+] leaves the terminal. Ctrl+C copies the selection, Ctrl+Shift+V pastes.";
export const DROP_FILES = "You can also drop files here, or on a directory.";
export const PORT_LABEL = "Port of a web server in the sandbox. Its URL works for an hour.";
export const NOTHING_IN_FRAME =
  "Nothing here? The app may not listen yet, or may refuse to be shown in a frame. Then open it in a tab.";
export const CONNECT_TEXTS = {
  oauth: "Clients that sign in by OAuth (claude.ai, for example) need only the address of this server:",
  token: (placeholder: ComponentChild, command: ComponentChild) =>
    sentence`All other clients send a token. Replace ${placeholder} below with the owner's token: ${command} in the server's directory prints the token. On Cloudflare, the token is the secret SERVER_AUTH_TOKEN.`,
  addedByOAuth: "signs in without a token",
};

export const privacyText = (days: number) =>
  `The operator of this server can read your tasks, commands, code and their output. The server keeps them for ${days} days after the run.`;

// In place of content

export const WAITING_FOR_CLIENT = "Waiting for the client that shows this page.";
export const LOADING = "Loading.";
export const LOADING_SANDBOXES = "Loading your sandboxes.";
export const LOADING_RUNS = "Loading the runs.";
export const LOADING_RUN = "Loading the run.";
export const SANDBOXES_UNAVAILABLE = "Your sandboxes cannot be shown now.";
export const NO_SANDBOXES = "No sandboxes yet. The first call of a connected client creates one.";
export const NO_SANDBOX_FOUND = "No sandbox name contains this text.";
export const NO_RUNS = "Nothing was run yet.";
export const NO_RUNS_HERE = "Nothing was run here yet.";
export const NO_OUTPUT_YET = "No output yet.";
export const NO_OUTPUT = "No output.";
export const NO_STEPS_YET = "Starting.";
export const NO_STEPS = "No steps.";
export const NO_CHANGES = "No files changed.";
export const NO_PORTS = "No port is open.";
export const NO_FILES = "No files yet.";
export const EMPTY_DIRECTORY = "Empty.";
export const NO_CHECKPOINTS = "No checkpoints yet.";
export const NEW_SANDBOX = "does not exist yet: the first command creates it";
export const NO_NAME_FOUND = "No file name contains this text.";
export const NO_FILE = "This file does not exist.";
export const NAME_NOT_UTF8 =
  "The file's name is not UTF-8, so it cannot be opened here. Rename it with a command, such as mv caf*.txt cafe.txt, or download its directory.";
export const MIXED_LINE_ENDS =
  "The file's lines end in different ways, so it cannot be edited here. Unify them with a command first, such as sed -i 's/\\r$//' <file>.";
export const ONLY_END = "The output is long: only its end is shown.";
export const onlyFirstEntries = (count: number) =>
  `Only the first ${count} entries are shown. A command lists all.`;
export const moreChanges = (count: number) => `And ${count} more.`;
export const deletedSandboxes = (names: ComponentChildren) =>
  sentence`Deleted sandboxes with checkpoints: ${names}`;
export const notKeptText = (count: string, files: ComponentChildren) =>
  sentence`Files that were not kept (${count}): ${files}`;
export const onlyFirst = (bytes: number) => `Only the first ${size(bytes)} are shown.`;
export const outputLeftOut = (bytes: number) =>
  `[${bytes.toLocaleString("en")} bytes of the output are left out here]`;
export const notShown = (bytes: number) => `[${bytes} bytes are not shown: this page could not keep up.]`;
