/** The lines that `npm start` prints when the server is ready: its URL, its token, and how to connect clients. */
import { dirname } from "node:path";
import { type ClientLine, clientLines } from "../src/server/client-lines.ts";
import type { MountedDirectory } from "../src/shared/mounted-directories.ts";
import { SANDBOX_NAME_FORM } from "../src/shared/names.ts";
import { shellWord } from "../src/shared/text.ts";
import { PACKAGE_PROGRAM, PROGRAM_FILE, isPackaged } from "./program-files.ts";
import type { Variables } from "./dev-vars.ts";

/** How a user calls the command line. PROGRAM of program-files.ts is not used, because it recognizes only `npm run cli`. */
const PROGRAM = isPackaged ? PACKAGE_PROGRAM : "npm run cli --";

interface Announcement {
  /** The MCP endpoint. */
  url: string;
  token: string;
  tokenSource: Variables["tokenSource"];
  /** The path of .dev.vars, where `npm start` stores a token that it generated. */
  file: string;
  /** Whether client configurations contain the token. True only on the user's own terminal, because others may read a log. */
  showsToken: boolean;
  /** Whether to print the configuration of every client, not only how to get it. */
  isVerbose: boolean;
  /** The user's directories in sandboxes, each printed with its sandbox's URL. */
  mounts: readonly MountedDirectory[];
}

/** The announcement as data, for `npm start -- --json`. The token itself never appears in a log; `token show` prints it. */
export function announcementData({
  url,
  tokenSource,
  file,
  mounts,
}: Omit<Announcement, "showsToken" | "isVerbose">) {
  return {
    url,
    panel: panelURL(url),
    pid: process.pid,
    token_source: tokenSource,
    ...(tokenSource === "environment" ? {} : { token_file: file }),
    mounts: mounts.map(({ path, sandbox }) => ({ path, sandbox, url: sandboxURL(url, sandbox) })),
  };
}

const sandboxURL = (url: string, sandbox: string) => `${url}?sandbox=${sandbox}`;

export function announce(announcement: Announcement): string {
  const { url, token, tokenSource, file, showsToken, isVerbose, mounts } = announcement;
  const fromEnvironment = tokenSource === "environment";
  const shell = fromEnvironment ? "$SERVER_AUTH_TOKEN" : `$(${readToken(file)})`;
  const written = showsToken ? token : "<SERVER_AUTH_TOKEN>";
  const whereabouts = {
    environment: "SERVER_AUTH_TOKEN of the environment",
    file: `SERVER_AUTH_TOKEN in ${file}`,
    generated: `SERVER_AUTH_TOKEN in ${file} (just generated; the next start uses it again)`,
  }[tokenSource];
  const clients = clientLines(url, { shell, written });
  const [claudeCode] = clients;
  const mounted = mounts.map(
    ({ path, sandbox }) => `${path} in sandbox ${sandbox}: ${sandboxURL(url, sandbox)}\n`,
  );
  return `sandbox-mcp is ready.
  URL     ${url}
  Token   ${whereabouts}
  Panel   ${panelURL(url)} (in a browser; sign in with the token)

${
  isVerbose
    ? everyClient(clients)
    : `Claude Code:
  ${claudeCode?.text}
Other clients: ${PROGRAM} connect <client>
`
}${mounted.join("")}Ctrl-C stops the server and every sandbox.
`;
}

/** Printed with `--verbose`: each client's configuration, and links that open a client. */
function everyClient(clients: readonly ClientLine[]): string {
  const lines = clients.map(
    ({ client, file: place, text }) => `${client}${place === undefined ? "" : ` (${place})`}:\n  ${text}\n`,
  );
  const links = clients.flatMap(({ client, link }) => (link ? `  ${client.padEnd(9)}${link}\n` : []));
  return `${lines.join("\n")}
Or open a link. It has no token: the client asks you to sign in with the token, in your browser.
${links.join("")}
All your chats share one sandbox, "default", unless a model names another. To give a chat or a project a separate sandbox,
add ?sandbox=name to the URL (${SANDBOX_NAME_FORM}).
`;
}

export function panelURL(url: string): string {
  return new URL("/panel", url).href;
}

/** A shell command that prints the token in `file`. It works in any directory, with or without quotes around the token. */
function readToken(file: string): string {
  if (isPackaged) return `node ${shellWord(PROGRAM_FILE)} token show`;
  return `npm --prefix ${shellWord(dirname(file))} run -s token`;
}
