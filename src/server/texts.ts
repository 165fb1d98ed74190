/** Texts of the server outside of tools: pages, refusals, and errors of the plain HTTP routes. */
import type { HTML } from "../auth/html.ts";
import type { PageMessage } from "../auth/texts.ts";
import { ToolError } from "../shared/errors.ts";
import { SANDBOX_NAME_FORM } from "../shared/names.ts";
import { sentence } from "../shared/sentence.ts";
import { shownName } from "../shared/shown.ts";
import { cutText } from "../shared/text.ts";

// Refusals of every route

export const BAD_HOST_TEXT =
  "This server does not accept the host name of the request. The operator can set PUBLIC_ORIGIN to the address that people use.";
export const BAD_ORIGIN_TEXT =
  "Web pages of this origin may not call this server. The operator can add the origin to ALLOWED_ORIGINS.";
export const longHeadText = (max: number) =>
  `The address and the headers of the request have more than ${max} characters together. Send fewer or shorter ones.`;
export const NOT_FOUND_PAGE = {
  title: "Page not found",
  message: "This server has no page at this address. Check the address, or go to the start page.",
  link: "Go to the start page",
};
export const NOT_JSON_TYPE = "Unsupported Media Type: Content-Type must be application/json";
export const TOO_MANY_OPEN = "The server has too many open requests. Try again in a few seconds.";
export const MISCONFIGURED = "The server is misconfigured";
export const oauthOffText = (why: string) => `OAuth is off: ${why}.`;

// The endpoint's page for browsers

export const LANDING_TEXTS = {
  title: "Linux sandboxes for MCP clients",
  about: ({ hasTasks }: { hasTasks: boolean }) =>
    `Assistants and agents use this server to run code and commands in Linux sandboxes${
      hasTasks
        ? ", to keep files there, and to hand whole tasks to a coding agent"
        : " and to keep files there"
    }.`,
  panel: "The panel",
  aboutPanel: (panel: HTML) => sentence`${panel} shows your sandboxes.`,
  connect: "Connect a client:",
  wrongQuery: (problem: string) => `${problem} The addresses below leave that part out.`,
  oauthOrToken: (placeholder: HTML) =>
    sentence`Clients that sign in by OAuth need only this address. All others send the server's token: replace ${placeholder} below with that token.`,
  token: (placeholder: HTML) => sentence`Replace ${placeholder} below with the server's token.`,
  add: (client: string) => `Add to ${client}`,
  addedByOAuth: (add: HTML) => sentence`Or follow the link ${add}, and sign in with your browser.`,
  sandboxes: (shared: HTML, query: HTML) =>
    sentence`All your chats share the sandbox ${shared}. To give a chat or a project its own, add ${query} to the address. A name has ${SANDBOX_NAME_FORM}.`,
};

// The body of an MCP request

export const bodyTooLargeText = (max: number) =>
  `The request body is over the limit of ${max} bytes (8 MiB). Write a large file in parts: write_file with append set to true for every part after the first.`;
export const noRoomText = (max: number) =>
  `Too many requests: your calls in progress and the answers that you have not read take more than ${max / 1024 / 1024} MiB of the server's memory. Wait for the calls and read the answers, then send this request again.`;
export const bodyTooSlowText = (ms: number) =>
  `Parse error: the request body took longer than ${ms / 1000} s`;
export const tooManyValuesText = (most: number) => `Invalid Request: the body has more than ${most} values`;
export const REPEATED_ID = "Invalid Request: the requests of a batch must have different ids";
export const CANCELLED_IN_BATCH = "Invalid Request: a batch must not cancel one of its own requests";
export const longBatchText = (max: number) => `Invalid Request: a batch must not exceed ${max} messages`;
export const longValueText = (max: number) =>
  `Invalid params: an id, a name, and the address of a resource may have at most ${max} characters`;
export const longMessageText = (max: number) =>
  `Invalid Request: besides the arguments of tools, a body may have at most ${max} characters`;
export const UNREADABLE_BODY = {
  broken: "Parse error: the request body broke off",
  not_utf8: "Parse error: the request body is not UTF-8",
  not_json: "Parse error: the request body is not JSON",
};

// Tasks over HTTP

export const REST_TEXTS = {
  tooLarge: "The request body is too large",
  notJSON: "The request body is not JSON",
  unreadable: "The request body cannot be read",
  componentNames: "Agents and commands must be lists of names",
  checkpoint: "Checkpoint must be a checkpoint's id",
  sandbox: "Sandbox must be a sandbox's name",
  model: "Model must be a model's name",
  taskAndQuestion: "Give either a task or a question, not both",
  strict: "strict must be 1 or true, 0 or false",
  running: "The task still runs, so its result cannot be deleted. Cancel the task, or wait for its end.",
  failed: "The run failed",
  noResult: "You have no task with this id. Its record may have expired.",
  required: "Give a task or a question, as text",
  tooLong: (field: string, max: number) => `${field} is longer than ${max} characters`,
  oneOf: (field: string, choices: readonly string[]) => `${field} must be ${choices.join(" or ")}`,
  milliseconds: (field: string, least: number, most: number) =>
    `${field} must be a number of milliseconds from ${least} to ${most}`,
  fields: (ofTask: string, ofQuestion: string) =>
    `A task accepts ${ofTask}. A question accepts ${ofQuestion}.`,
  noField: (name: string | undefined, fields: string) =>
    `The field ${JSON.stringify(name && cutText(name, 100))} does not exist. ${fields}`,
};

// Links to files

export const LINK_TEXTS = {
  invalid:
    "This link is incomplete, or belongs to another server. Copy the whole link, or ask for a new one.",
  expired: "This link has expired. Ask for a new one.",
  isDownload: "This link is for a download. It does not accept uploads.",
  noResult: "This result no longer exists. Results are deleted after some time.",
  busy: "Another upload is using this link. If it fails, the link works again.",
  used: "This link was already used. Ask for a new one.",
  sandboxGone: "This link ended when its sandbox was stopped or destroyed. Ask for a new one.",
};
export const LINK_PAGE_TITLE = "Files of a sandbox";
export const UPLOAD_TEXTS = {
  title: "Upload a file",
  heading: "Upload a file to a sandbox",
  about: (path: HTML, max: string) =>
    sentence`The file is saved as ${path}. At most ${max}. The link works for one file.`,
  choose: "Choose a file, or drop it on this page:",
  send: "Upload",
  progress: "Uploaded so far",
  inTerminal: (command: HTML) => sentence`In a terminal: ${command}`,
  addressOfPage: "<the address of this page>",
  done: "Uploaded",
  received: (bytes: number, sha256: HTML) => sentence`${bytes} bytes, SHA-256 ${sha256}`,
};
/** Texts that the upload page's script shows. The script replaces names in braces. */
export const UPLOAD_SCRIPT_TEXTS = {
  oneFile: "This link takes one file. Pack several files into one archive first.",
  tooLarge: "{name} has {size} bytes. At most {max} are allowed.",
  progress: "{name}: {percent} %",
  broke: "The connection broke, and nothing was saved. Try again.",
  unexpected: "Nothing was saved. Try again. The server responded with the unexpected status {status}.",
  done: "Uploaded: {name}, {size} bytes, SHA-256 {sha256}",
};

// Files over HTTP

export const notAFileAddress = () =>
  new ToolError(
    "invalid_argument",
    "This is not the address of a file in a sandbox.",
    "Use /sandboxes/<name>/files/<path>.",
  );
export const notASandbox = (rule: string) =>
  new ToolError(
    "invalid_argument",
    `The name of a sandbox ${rule}.`,
    "Use /sandboxes/<name>/files/<path>, with the name percent-encoded.",
  );
export const notRemoved = (path: string) =>
  new ToolError(
    "invalid_argument",
    `${path} itself cannot be removed; nothing was changed.`,
    "Remove the files in it, or use destroy_sandbox.",
  );
export const REMOVE_RECURSIVELY = "?recursive=true removes the directory with everything in it.";
export const pathNotEncoded = () =>
  new ToolError(
    "invalid_argument",
    "The path is not percent-encoded UTF-8.",
    "Encode each part of the path as encodeURIComponent does.",
  );
export const pathTooLong = (max: number) =>
  new ToolError("invalid_argument", `The path is longer than ${max} characters.`, "Use a shorter path.");
export const sizeUnknown = (path: string, bytes: number) =>
  new ToolError(
    "too_large",
    `${shownName(path)} reports no size and has ${bytes} bytes or more.`,
    "Copy it in the sandbox, then download the copy.",
  );
export const unknownArchive = () =>
  new ToolError("invalid_argument", "Unknown archive format: use ?archive=zip or ?archive=tar.gz.");
export const fileNotArchived = (path: string) =>
  new ToolError("not_directory", `${shownName(path)} is a file, not a directory.`, "Leave out ?archive.");
export const becameShorter = (path: string) =>
  new ToolError(
    "file_system",
    `Reading ${shownName(path)} failed: the file became shorter during the read.`,
    "Make the same request again.",
  );
export const unsupportedHeader = (name: string) =>
  new ToolError(
    "invalid_argument",
    `The server does not support the header ${name} in a request that changes a file; nothing was changed.`,
    "Send the whole file without this header.",
  );
export const uploadTooLarge = (max: number) =>
  new ToolError(
    "too_large",
    `The file is larger than the allowed ${max} bytes; nothing was written.`,
    "Send a smaller file, or split it into several files.",
  );

// The page for decisions about network access

const NOTHING_CHANGED = "Nothing was changed";
export const DECISION_TEXTS = {
  title: "Give a sandbox more internet access?",
  explanation:
    "A program or an assistant asked for this. If you allow it, any program in the sandbox can send data to these hosts.",
  everything: "All of the internet",
  host: "Host",
  sandbox: "Sandbox",
  allow: "Allow",
  refuse: "Refuse",
  otherPerson: {
    title: "This question is not for you",
    message: "It is about another person's sandbox. Nothing was changed.",
  },
  noScope: {
    title: "You cannot decide this here",
    message: "You signed in without the permission to run code. Sign in again, and tick this permission.",
  },
  otherSite: {
    title: NOTHING_CHANGED,
    message: "A decision must be sent from this server's own page. Open the link from your app again.",
  },
  failed: (why: string): PageMessage => ({ title: NOTHING_CHANGED, message: why }),
  allowed: (sandbox: string): PageMessage => ({
    title: "Allowed",
    message: `Sandbox ${sandbox} has this access from now on. Go back to your app.`,
  }),
  refused: { title: "Refused", message: "Nothing was changed. Go back to your app." },
  signIn: {
    title: "Sign in to decide",
    message:
      "Somebody asked for more internet access for a sandbox. Sign in as the person to whom the sandbox belongs.",
  },
  gone: {
    title: "There is nothing to decide",
    message:
      "The question was already decided, is older than 15 minutes, or its sandbox is gone. Go back to your app.",
  },
};

// The page for git hosts

export const GIT_TEXTS = {
  off: {
    title: "Signing in to git hosts is off",
    message: "The operator has switched it off (GIT_SIGN_IN).",
  },
  signInFirst: {
    title: "Sign in to the panel first",
    message: "This page is about git hosts for your sandboxes. Sign in as the person to whom they belong.",
  },
  title: "Git hosts",
  about:
    "Add an access token for a git host. git in your sandboxes can then use your private repositories there.",
  listed: "You are signed in to:",
  since: (day: string) => `Since ${day}`,
  remove: "Remove",
  signIn: "Sign in",
  signInTo: "Sign in to a git host",
  warning:
    "An app may have opened this page for you. The server sends the token to this host: sign in only if you know the host.",
  rights:
    "At GitHub, a fine-grained token that may read and write the contents of the repositories is enough; at GitLab, one with read_repository and write_repository.",
  risk: "Code in a sandbox never sees the token, but can do everything that the token allows. Create a token for this purpose only: few repositories, early expiry.",
  host: "Host",
  token: "Access token",
  user: "User name, if the host needs one",
  wrongHost: "Your sandboxes may not reach a host of this name.",
  wrongToken: "A token has 16 to 1000 visible characters. A user name has letters, digits and . _ - + @.",
  unreadable: { title: NOTHING_CHANGED, message: "The form could not be read. Go back, and send it again." },
  signedIn: (host: string): PageMessage => ({
    title: "The token is saved",
    message: `git in your sandboxes uses the token for ${host} from now on. Go back to your app.`,
  }),
  removed: (host: string): PageMessage => ({
    title: "Removed",
    message: `Your sandboxes no longer have a token for ${host}. The host still accepts the token: revoke it there.`,
  }),
};

// Pages in place of a preview

export const PREVIEW_TEXTS = {
  unknown: {
    title: "This preview does not exist",
    message: "The address is incomplete, or belongs to another server. Ask for a new one.",
  },
  ended: {
    title: "This preview has ended",
    message: "It expired, was closed, or its sandbox was destroyed. Ask for a new one.",
  },
  stopped: {
    title: "The sandbox of this preview has stopped",
    message:
      "Its programs have ended. This page reloads when the sandbox is used again and the program runs.",
  },
  waiting: {
    title: "Waiting for the program",
    message:
      "No program listens on this port yet, or it did not respond within five minutes. This page reloads when one does.",
  },
  silent: {
    title: "The program no longer responds",
    message:
      "The program on this port has ended or does not respond, or this preview has too many connections. This page reloads when the program responds again.",
  },
  tls: {
    title: "The program expects TLS",
    message:
      "A preview needs plain HTTP. Start the program without TLS (HTTPS); this page then reloads. The address of the preview can still be HTTPS.",
  },
  foreign: {
    title: "The program does not use HTTP",
    message:
      "A preview can show only a program that responds by HTTP. This page reloads when such a program listens on the port.",
  },
  badStatus: {
    title: "The program's response is not valid",
    message: "Its status is not a valid HTTP status. Correct the program, then reload this page.",
  },
  limited: { title: "Too many requests", message: "This preview gets too many requests. Wait a minute." },
} satisfies Record<string, PageMessage>;

// The panel

export const PANEL_TITLE = "Sandboxes";
export const OPEN_PANEL = "Open the panel";
export const panelOff = (why: string): PageMessage => ({
  title: "The panel is off",
  message: `The panel needs OAuth, which is off: ${why}.`,
});
export const NEEDS_SCRIPTS = "The panel needs JavaScript. Allow it in your browser, then reload this page.";
