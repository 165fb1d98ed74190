/** Texts of the client library's errors. Most are a message and a hint, the arguments of an error after its code. */
type ErrorTexts = readonly [message: string, hint: string];

// The connection

export const CLOSED: ErrorTexts = ["The connection was closed.", "Connect again."];
export const TRY_LATER = "Try again later.";
export const responseTooLarge = (mebibytes: number): ErrorTexts => [
  `The server's response is larger than ${mebibytes} MiB.`,
  "Ask for less.",
];
export const STREAM_ENDED = "The connection was closed before the response.";
export const wrongForm = (url: string): ErrorTexts => [
  `${url} sent a result that does not have the form of a sandbox-mcp server's.`,
  "Check the address, and the versions of the client and the server.",
];
export const unreachable = (url: string, why: string): ErrorTexts => [
  `No server responds at ${url} (${why}).`,
  "Check the address, then try again.",
];
export const redirected = (from: string, to: string): ErrorTexts => [
  `${from} redirects to ${to}.`,
  "If you trust that address, use it.",
];
export const notAnEndpoint = (url: string): ErrorTexts => [
  `${url} is not the endpoint of a sandbox-mcp server (404).`,
  "The endpoint's address ends in /mcp.",
];
export const statusText = (url: string, status: number, body: string) =>
  `${url} responded with status ${status}: ${body}`;
export const toolFailed = (tool: string) => `${tool} failed.`;
export const ACCESS_HINTS = {
  unauthorized: "Use another token.",
  forbidden: "If the message names a scope, use a token with this scope.",
};

// Files and ports

export const NO_PORT_URL = "The server gave no URL for the port.";
export const isFileText = (path: string): ErrorTexts => [`${path} is a file.`, "Read it with files.read."];
export const isDirectoryText = (path: string): ErrorTexts => [
  `${path} is a directory.`,
  "List it with files.list, or download it with archive.",
];
export const tooManyEntries = (path: string, max: number): ErrorTexts => [
  `${path} has more than ${max} entries.`,
  "List its directories one by one.",
];

// Adapters

/** How the AI SDK describes the sandbox to a model. */
export const DESCRIPTION =
  "A Linux sandbox. Commands run with bash as root in /workspace, whose files are kept; relative paths start there. Python, Node and git are installed.";
export const NO_INPUT: ErrorTexts = ["The process takes no input.", "Start it again with tty."];
export const NO_STANDARD_INPUT: ErrorTexts = [
  "Standard input of a running process cannot be written to.",
  "Write the input to a file, and redirect it with <.",
];
export const wrongEncoding = (encoding: string): ErrorTexts => [
  `Text cannot be written as ${encoding}.`,
  "Encode the text, and write the bytes with writeBinaryFile.",
];
export const noSession = (id: number): ErrorTexts => [
  `There is no session ${id}, or it has ended.`,
  "Run the command again.",
];
export const notChecked = (path: string, state: string): ErrorTexts => [
  `It is unknown whether ${path} exists, because the state of the command that checks this is ${state}.`,
  "Try again.",
];
export const sandboxGone = (name: string) => `There is no sandbox ${name} anymore. Start a new run.`;
export const existsAlready = (path: string) => `${path} exists already. Update it instead.`;
export const notFoundText = (path: string) => `${path} was not found.`;
export const archiveTooLarge = (bytes: number, max: number | null | undefined) =>
  `The archive has ${bytes} bytes, and maxInputBytes allows ${max}. Raise the limit, or archive less.`;

const ALL_ROOT = "Everything belongs to root.";
const unsupported = (what: string, hint: string) => `sandbox-mcp does not support this: ${what}. ${hint}`;
/** Features of the OpenAI Agents SDK that the adapter refuses. */
export const UNSUPPORTED = {
  snapshots: unsupported("Snapshots", "Give the sandbox a name, so that its files are kept."),
  ephemeralRoot: unsupported("An ephemeral root", "Mark single entries as ephemeral instead."),
  users: unsupported("Users and groups", ALL_ROOT),
  grants: unsupported("Read-only grants, and grants of host paths", "Write the files as entries."),
  entryType: (type: string, path: string) =>
    unsupported(`Entries of type ${type} (${path})`, "Give the content as an entry of type file."),
  group: (path: string) => unsupported(`A group (${path})`, ALL_ROOT),
  runAs: (user: string) => unsupported(`Running as ${user}`, ALL_ROOT),
};
