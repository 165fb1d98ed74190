/** Texts of the tools: results for models, and errors. Each tool's file has its description. */
import { ToolError } from "../shared/errors.ts";
import type { Fork } from "../actors/account.ts";
import type { AccountView } from "../actors/sandbox-record.ts";
import type { RestoredCheckpoint } from "../actors/account-calls.ts";
import type { Checkpoint } from "../actors/saved-states.ts";
import type { SetUpState } from "../actors/set-up.ts";
import { type RunSummary, type WaitState, durationMs } from "../runs/run-types.ts";
import type { EachField } from "../shared/run-listing.ts";
import type { z } from "zod";
import type { sandboxListing } from "../shared/sandbox-listing.ts";
import { CLOUDFLARE_PORT } from "../shared/reserved-ports.ts";
import { shownName, makeVisible } from "../shared/shown.ts";
import { pluralize, savedSize } from "../shared/text.ts";

const invalid = (message: string, hint = "") => new ToolError("invalid_argument", message, hint);

/** Units of time in seconds. A duration is shown in the largest unit that it contains at least twice. */
const UNITS = [
  [86_400, "days"],
  [3600, "h"],
  [60, "min"],
] as const;

/** A duration in words. A model does not know the time, so lists say how long ago something was. */
function span(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const [size, unit] = UNITS.find(([one]) => seconds >= 2 * one) ?? [1, "s"];
  return `${Math.round(seconds / size)} ${unit}`;
}

const ago = (time: number | string) => `${span(Date.now() - new Date(time).getTime())} ago`;

// The choice of tools

export const notOffered = (tool: string, offered: Iterable<string>) =>
  new ToolError(
    "not_configured",
    `This server does not offer ${tool}.`,
    `It offers ${[...offered].join(", ")}; the operator chooses them with TOOLS.`,
  );
export const leftOutByConnection = (tool: string, chosen: Iterable<string>) =>
  new ToolError(
    "not_configured",
    `This connection has no ${tool}: the ?tools= of its address leaves it out.`,
    `It has ${[...chosen].join(", ")}.`,
  );

export const serverStopped = () =>
  new ToolError(
    "connection_lost",
    "The server stopped during this call, so its sandboxes stopped too. It saves their files before it ends.",
    "When the server runs again, list_runs shows what became of a run that took over a second. For another call, check its effects before you repeat it.",
  );

// Runs

export const NO_OUTPUT = "Done, without output.";
export const runningText = (id: string, seconds: number) =>
  `Still running after ${seconds} s. Wait with get_result, id ${id}, or stop it with cancel_run.`;

/** What a run waits for, and the next call. The run's own id comes first, so that a model does not wait for another run. */
export function waitingText(id: string, { behind, kind, name }: WaitState): string {
  const [first, ...more] = behind;
  const wait = `Not started. Wait with get_result, id ${id}, or withdraw it with cancel_run.`;
  if (kind === "setup") return `${wait} The sandbox's set-up runs first: ${first}.`;
  const others = more.length > 0 ? ` Runs that also wait before this one: ${more.length}.` : "";
  const [place, other] = kind === "workspace" ? ["the workspace", "sandbox"] : [`${kind} ${name}`, kind];
  return `${wait} It waits for run ${first} in ${place}. Cancel that run if it hangs, or use another ${other}.${others}`;
}

/** Part of the description of `wait_seconds`. */
export const RUN_CONTINUES = "A run that takes longer continues.";
export const behindText = ({ behind }: WaitState) => `Waits for its turn behind ${behind.join(", ")}.`;
export const readArtifactText = (id: string) => `Read one with get_result, id ${id} and artifact <path>.`;
export const networkQuestionText = (sandbox: string, hosts: string) =>
  `Sandbox ${sandbox} asks to reach ${hosts}. Allow or refuse this on this server's page.`;
export const inTerminalText = (id: string) =>
  `The command runs in a terminal: type with send_input, id ${id}. get_result waits for its end, and cancel_run stops it.`;
export const typeText = (id: string) => `The command runs in a terminal: type with send_input, id ${id}.`;

export function wholeOutputText(id: string, droppedBytes: number): string {
  const kept = droppedBytes > 0 ? ` (its last ${droppedBytes} bytes were not kept)` : "";
  return `Whole output${kept}: get_result, id ${id}, cursor 0.`;
}

export const resultCutText = (mark: string) =>
  `A result is cut at "${mark}". To get the whole value, print it or write it to a file.`;
export const listeningText = (ports: readonly number[]) =>
  `port ${ports.join(", ")}; expose_port gives it a URL`;
export const hiddenImagesText = (count: number, id: string) =>
  `images: ${count}, shown by get_result, id ${id}`;
export const continueText = (id: string) => `To continue this task: execute_task with continue_from ${id}.`;
export const pageEndText = (droppedBytes: number) =>
  `This is the end of the log.${droppedBytes > 0 ? ` ${droppedBytes} bytes after it were not kept.` : ""}`;
export const pageMoreText = (cursor: number) => `There is more: go on with cursor ${cursor}.`;
export const pageRunningText = (cursor: number) => `Still running: wait for more with cursor ${cursor}.`;
export const skippedText = (bytes: number) =>
  `${bytes} earlier bytes are in the log: read them with get_result and a cursor.`;
export const longLineText = (maxBytes: number) =>
  `The typed line is longer than ${maxBytes} bytes: programs that read lines (read, input(), cat) get only its first ${maxBytes}. Use write_file for longer lines.`;
export const nothingToType = () => invalid("send_input needs text, or both columns and rows.");
export const oneInput = () =>
  invalid(
    "stdin and interactive cannot be used together: programs in a terminal read only typed text.",
    "Leave stdin out, and type its text with send_input.",
  );

export function listedRunText(run: RunSummary, state: string): string {
  const isOpen = run.state === "running";
  const { title, ...before }: EachField<string> = {
    id: run.id,
    kind: run.kind,
    state,
    started_at: isOpen ? `for ${span(Date.now() - run.startedAt)}` : `${ago(run.startedAt)},`,
    duration_ms: isOpen ? undefined : `${durationMs(run)} ms`,
    exit_code: undefined,
    title: makeVisible(run.title),
  };
  return `${Object.values(before).filter(Boolean).join(" ")}: ${title}`;
}

export const foreignCursor = (cursor: string, sandbox: string) =>
  invalid(`The cursor ${cursor} does not belong to sandbox ${sandbox}.`, "Leave out cursor.");

export function noRunsText(sandbox: string | undefined, isPage: boolean): string {
  const earlier = isPage ? "earlier " : "";
  return sandbox === undefined ? `You have no ${earlier}tasks.` : `Sandbox ${sandbox} has no ${earlier}runs.`;
}

export const OLDER_RUNS = "... older ones: set cursor to the last id above";

// Files

export const byBytesText = (maxBytes: number, note = "") =>
  `file_link gives the user a URL. To read the file's bytes: read_file with encoding base64, ${maxBytes} at a time${note}.`;
export const artifactBytesText = (maxBytes: number) =>
  `To read its bytes: get_result with cursor 0, ${maxBytes} at a time.`;

export function artifactPageText(path: string, from: number, to: number, size: number, isBase64: boolean) {
  const rest = to < size ? `Go on with cursor ${to}.` : "This is the end.";
  return `[${shownName(path)}, bytes ${from} to ${to} of ${size}${isBase64 ? " in base64" : ""}. ${rest}]`;
}

/** @param next the call that reads the file's bytes @param shown how many bytes follow the text */
export function binaryText(path: string, { size, kind, next, shown, hasNUL }: BinaryFile): string {
  const first = shown < size ? `First ${shown} bytes` : "All of it";
  const reason = hasNUL ? "has NUL bytes" : "is not UTF-8 text";
  const asText = hasNUL ? "To read it as text: read_file with encoding utf-8. " : "";
  return `[${shownName(path)} ${reason}: ${size} bytes, ${kind ?? "unknown type"}. ${asText}${next} ${first}:]`;
}

interface BinaryFile {
  size: number;
  kind: string | undefined;
  next: string;
  shown: number;
  /** The bytes are UTF-8 text with NUL. */
  hasNUL: boolean;
}

interface ShownLines {
  /** Bytes and lines of the whole file. */
  size: number;
  lines: number;
  /** The first line of the content. */
  offset: number;
  content: string;
  /** The limit in bytes at which the content was cut; false if it was not cut. */
  cut: number | false;
}

/** Says how to read on after the shown lines, or that the file ends; and how lines end, if not with \n. Else it is empty. */
export function shownLinesText(path: string, shown: ShownLines): string {
  const isMixed = /(?<!\r)\n/.test(shown.content);
  const crlf = isMixed ? "[Some lines end with \\r\\n.]" : "[Lines end with \\r\\n. edit_file keeps that.]";
  const parts = [readOnText(path, shown), shown.content.includes("\r\n") && crlf];
  return parts.filter(Boolean).join("\n");
}

function readOnText(path: string, { size, lines, offset, content, cut }: ShownLines): string {
  const name = shownName(path);
  const fileSize = `${pluralize(lines, "line")}, ${pluralize(size, "byte")}`;
  if (content === "")
    return size === 0 ? `[${name} is empty.]` : `[${name} has ${fileSize}: there is no line ${offset}.]`;
  const isPartial = cut !== false && !content.endsWith("\n");
  const last = offset + content.split("\n").length - (content.endsWith("\n") ? 2 : 1);
  if (isPartial && last === offset)
    return `[${fileSize}. Line ${offset} is longer than ${cut} bytes. To read its rest: encoding base64, with offset in bytes (the first byte is 0).]`;
  if (isPartial) return `[${fileSize}; shown up to line ${last}, which is cut. Go on with offset ${last}.]`;
  if (last < lines) return `[${fileSize}; shown up to line ${last}. Go on with offset ${last + 1}.]`;
  const unended = content.endsWith("\n") ? "" : " Its last line has no line break.";
  return offset === 1 ? unended && `[${name}:${unended}]` : `[${fileSize}; this is the end.${unended}]`;
}

export function readBytesText(path: string, offset: number, end: number, size: number): string {
  const fileSize = `${shownName(path)} has ${pluralize(size, "byte")}`;
  if (offset > 0 && offset >= size) return `[${fileSize}: there is no byte ${offset}.]`;
  const rest = end < size ? ` Go on with encoding base64 and offset ${end}.` : "";
  return `[${fileSize}; bytes ${offset} to ${end} in base64.${rest}]`;
}

export const notText = (path: string) =>
  invalid(`${shownName(path)} is not UTF-8 text.`, "Read it with encoding base64, or leave encoding out.");
export const nulFrom = (path: string, line: number) =>
  invalid(`${shownName(path)} has NUL bytes from line ${line} on.`, "Read it with encoding utf-8.");
export const notTextFrom = (path: string, line: number) =>
  invalid(
    `${shownName(path)} is not UTF-8 text from line ${line} on.`,
    "Read it with encoding base64, where offset counts bytes.",
  );

export function writtenText(path: string, bytes: number, size: number, isAppended: boolean): string {
  const name = shownName(path);
  return isAppended
    ? `Appended ${bytes} bytes to ${name}: ${size} in all.`
    : `Wrote ${bytes} bytes to ${name}.`;
}

export const notWellFormed = () =>
  invalid(
    "Nothing was written: the content has half of a surrogate pair, which UTF-8 cannot encode.",
    "Send the bytes with encoding base64.",
  );
export const notBase64 = () =>
  invalid(
    "Nothing was written: the content is not valid base64.",
    "Encode the bytes again, or send text with encoding utf-8.",
  );

export function editedText(path: string, replaced: number, size: number, hasNoDiff: boolean): string {
  const left = hasNoDiff ? " There is no diff, because computing it would take too long." : "";
  return `${replaced} replaced; ${shownName(path)} has ${size} bytes.${left}`;
}

export const sameText = (edit: number) =>
  invalid(
    `Nothing was written: old_text and new_text of edit ${edit} are the same.`,
    "Leave that edit out, or correct its new_text.",
  );
export const emptyDirectoryText = (path: string, isPage: boolean) =>
  isPage ? "There are no more entries." : `${shownName(path)} is empty.`;
export const longNames = (count: number) =>
  invalid(`The names of ${count} entries are too long to be shown together.`, "Give a smaller limit.");
export const moreFilesText = (cursor: string, maxLimit: number) =>
  `... more: go on with cursor ${cursor}, raise limit (at most ${maxLimit}), or list a subdirectory.`;

// Links

export const downloadText = (name: string, url: string) =>
  `[Download ${shownName(name)} (for the user, 1 hour): ${url}]`;
export const LINK_HINTS = {
  download: "in a browser, or curl -OJ URL",
  zip: "add ?archive=zip",
  upload: "in a browser, or curl -T FILE URL",
} as const;
export const mayNotUpload = () =>
  new ToolError(
    "permission_denied",
    "An upload link needs the scope sandbox:write, which your token lacks.",
    "Ask the user for a token with this scope.",
  );
export const uploadToDirectory = (path: string) =>
  new ToolError("is_directory", `${shownName(path)} is a directory.`, "Give the path of a file in it.");
export const noLinks = () =>
  new ToolError(
    "not_configured",
    "This server makes no links: its variable LINK_KEY is not set.",
    "Tell the user that the operator has to set it. read_file with encoding base64 reads any file.",
  );
export const noPreviews = (variable: string) =>
  new ToolError(
    "not_configured",
    `This server makes no previews: its variable ${variable} is not set.`,
    "Tell the user that the operator has to set it (docs/guides/deploy.md). Inside the sandbox, curl reaches the program.",
  );
export const reservedPort = (port: number) =>
  invalid(
    `Port ${port} of a sandbox is used by the server itself${port === CLOUDFLARE_PORT ? " (by Cloudflare's Sandbox SDK)" : ""}.`,
    "Start the program on another port, such as 8000 (most programs take PORT or --port), and expose that.",
  );
export const notListeningText = (port: number) =>
  `nothing on port ${port} yet; the URL works when a program listens there`;
export const closedText = (port: number, sandbox: string, wasOpen: boolean) =>
  `Port ${port} of sandbox ${sandbox} is ${wasOpen ? "no longer" : "not"} exposed.`;

/** @param before the expiry that this call has replaced, in milliseconds since the epoch */
export function expiryText(expiresAt: number, before = 0): string {
  const expires = `in ${span(expiresAt - Date.now())}`;
  return before > expiresAt ? `${expires}, sooner than before (${span(before - Date.now())})` : expires;
}

// Images

export const imageNotShown = (name: string, problem: string, hint: string) =>
  new ToolError("not_shown", `The image ${name} ${problem}`, hint);
const IMAGES_OFF = "Not shown: this connection has ?images=off.";
export const imageHiddenText = (name: string, what: string, bytes: number, instead: string) =>
  `[${name}: ${what}, ${bytes} bytes. ${IMAGES_OFF} ${instead}]`;
export const RUN_IMAGES_HIDDEN = `${IMAGES_OFF} file_link gives a URL of the file.`;

/** @param path the file of an image that code showed, if it was kept @param isScaled whether the file has the larger original */
export function imageFileText(path: string | undefined, isScaled: boolean): string {
  if (path !== undefined) return `${isScaled ? "The original" : "Its file"} is ${shownName(path)}.`;
  return "It is not in a file: to keep it, save it in the code (figure.savefig, image.save).";
}

// Sandboxes and checkpoints

export const SETUP_WORDS: Record<SetUpState, string> = {
  none: "none",
  due: "runs before the next call",
  running: "is running",
  succeeded: "has run",
  failed: "failed",
};
export const RESERVED_VARIABLE = "is a name that the shell or this server uses itself";
export const NOT_A_VARIABLE =
  "is not a valid variable name: use at most 1,000 letters, digits and _, and no digit at the start";
export const NO_SANDBOXES = "You have no sandbox yet: run_code or run_command makes one.";
export const COMPONENTS_UNKNOWN = "The agents and commands for execute_task cannot be listed now.";

type ListedSandbox = z.input<typeof sandboxListing>["sandboxes"][number];

export function sandboxText(sandbox: ListedSandbox): string {
  const { name, state, size_bytes, last_used_at, saved_at, saved_bytes, internet } = sandbox;
  // A stopped sandbox has the size 0, although its saved files may be in /workspace.
  const size = size_bytes === undefined || state === "stopped" ? "" : `, ${size_bytes} bytes in /workspace`;
  const saved = saved_at === undefined ? "" : `, saved ${ago(saved_at)} (${saved_bytes} bytes in all)`;
  const reaches = internet === undefined || internet === "full" ? "" : `, internet ${internet}`;
  return `${name}: ${state}${size}, used ${ago(last_used_at)}${saved}${reaches}`;
}

export const variablesText = (variables: readonly string[]) =>
  `  variables: ${variables.map(shownName).join(", ")}`;

export const settingsUnlisted = (count: number) =>
  `The list is too long for the variables and network access of the last ${count} sandboxes above. To see those of one, call configure_sandbox.`;
export const previewText = ({ port, url, expires_at }: ListedSandbox["previews"][number]) =>
  `  port ${port} is exposed for ${span(new Date(expires_at).getTime() - Date.now())}${url ? `: ${url}` : ""}`;

export function listedCheckpointText({ id, sandbox, label, savedAt, bytes, expiresAt }: Checkpoint): string {
  const name = label ? ` (${shownName(label)})` : "";
  return `checkpoint ${id} of ${sandbox}${name}: ${ago(savedAt)}, ${bytes} bytes, kept for ${span(expiresAt - Date.now())}`;
}

type Counts = Record<"sandboxes" | "running" | "checkpoints", number>;

export function limitsText({ limits, ...used }: AccountView, counts: Counts): string {
  const parts = [
    `${counts.sandboxes}/${limits.sandboxes} sandboxes (${counts.running}/${limits.runningSandboxes} running)`,
    `${used.runSecondsToday}/${limits.runSecondsPerDay} run seconds and ${used.modelTokensToday}/${limits.modelTokensPerDay} model tokens today`,
    `${megabytes(used.storedBytes)}/${megabytes(limits.storageBytes)} MB of results (oldest deleted first)`,
    `${megabytes(used.workspaceBytes)}/${megabytes(limits.workspaceBytes)} MB of saved files`,
    `${counts.checkpoints}/${limits.checkpoints} checkpoints`,
  ];
  return `Used: ${parts.join(", ")}. At most ${limits.concurrentRuns} runs at once.`;
}

/** Converts bytes to MiB. The text says MB, because the names of the variables that set the limits end in _MB. */
const megabytes = (bytes: number) => String(Math.round((bytes / 1024 / 1024) * 10) / 10);

export function secretText(name: string, hosts: readonly string[], variable: string | undefined): string {
  const placeholder = variable ? `; ${variable} has a placeholder for it` : "";
  return `secret ${name}: added to requests to ${hosts.join(", ")}${placeholder}`;
}

export const destroyedText = (sandbox: string, existed: boolean) =>
  existed
    ? `Sandbox ${sandbox} is destroyed, with its saved workspace.`
    : `There is no sandbox ${sandbox}; nothing was destroyed.`;
export const checkpointsLeftText = (count: number, areDeleted: boolean) =>
  areDeleted
    ? `Checkpoints deleted: ${count}.`
    : `Checkpoints kept: ${count}; checkpoints=true deletes them too.`;
export const checkpointDeletedText = (checkpoint: string, sandbox: string, left: number) =>
  `Checkpoint ${checkpoint} is deleted. Sandbox ${sandbox} is unchanged; checkpoints left: ${left}.`;
export const oneOrAllCheckpoints = () =>
  invalid(
    "Nothing was deleted: checkpoint and checkpoints=true cannot be used together.",
    "Use either checkpoint (deletes one checkpoint) or checkpoints=true (deletes the sandbox and all its checkpoints).",
  );
export const noCheckpoints = () =>
  new ToolError(
    "not_configured",
    "This server does not save workspaces, so it has no checkpoints; nothing was changed.",
    "The operator has to remove WORKSPACE_SAVE=off. Until then, copy important files out with read_file or file_link.",
  );
export const checkpointText = (sandbox: string, { id, files, bytes, expiresAt }: Checkpoint) =>
  `Checkpoint ${id} of sandbox ${sandbox}: ${savedSize(files, bytes)}, kept for ${span(expiresAt - Date.now())}.`;

export type Restored = RestoredCheckpoint & Partial<Fork>;

export function forkedText(sandbox: string, from: string, { to, hasSettings = false }: Restored): string {
  const settings = hasSettings ? " It also has the settings of the checkpoint." : "";
  return `Sandbox ${sandbox} is new, with the files of ${from} from ${stateText(to)}.${settings}`;
}

export function restoredText(sandbox: string, { to, before, unsaved, deleted = [] }: Restored): string {
  const older =
    deleted.length > 0 ? ` Older checkpoints of restores were deleted: ${deleted.join(", ")}.` : "";
  return `Sandbox ${sandbox} is restored to its files from ${stateText(to)}. ${beforeText(before, unsaved)}${older}`;
}

const stateText = ({ savedAt, files, bytes }: Checkpoint) => `${ago(savedAt)} (${savedSize(files, bytes)})`;

function beforeText(before: Checkpoint | undefined, unsaved: string | undefined): string {
  if (unsaved === undefined)
    return before ? `The previous state is checkpoint ${before.id}.` : "The sandbox had no files before.";
  if (!before)
    return `The previous state could not be saved (${unsaved}), and there is no earlier save: that state is lost.`;
  return `The previous state could not be saved completely (${unsaved}): checkpoint ${before.id} has the state of ${ago(before.savedAt)}, and later changes are lost.`;
}

export const networkDeclined = (sandbox: string, what: string) =>
  new ToolError(
    "permission_denied",
    `The user did not allow sandbox ${sandbox} to reach ${what}.`,
    "Continue without this access, or tell the user why it is needed.",
  );

// Signing in to git hosts

/** @param page where the user can sign in to the host; undefined if the user cannot */
export function signInText(host: string, page: string | undefined): string {
  const signIn = page === undefined ? "" : `the user can sign in to this host at ${page}, or `;
  return `git lacks credentials for ${host}: ${signIn}the operator can add the host to SECRETS. Do not ask for a token in the chat.`;
}

export const signInQuestion = (host: string) =>
  `${host} refused git. To let your sandboxes use ${host}, open this server's page and enter an access token.`;
export const signedInText = (host: string) =>
  `The user signed in to ${host} after this run began, so run it again. If ${host} refuses git again, use another sandbox, because this one may have started before the sign-in. If ${host} refuses git there too, the token lacks rights.`;
export const didNotSignInText = (host: string) =>
  `The user did not sign in to ${host} for git. Do not try again unless the user asks.`;
