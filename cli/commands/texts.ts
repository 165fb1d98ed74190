/** The texts of single commands: errors, hints and notes. ../texts.ts has the texts that several commands use. */
import { basename } from "node:path";
import { SCOPES } from "../../src/shared/principal.ts";
import { messageOf, shellWord } from "../../src/shared/text.ts";
import { cancelled, type CommandError, failed, refusedByServer, unavailable, usage } from "../exit.ts";
import { PROGRAM, startLine } from "../program-files.ts";

/** Why a command has no --json. */
export const NO_JSON = {
  shell: `A terminal has no output in JSON. For a command's output in JSON: ${PROGRAM} command --json '...'`,
  stdio: "Standard output is the protocol, which is JSON already: leave out --json.",
};

// ask, code, command

export const askDisconnected = () =>
  unavailable(
    `The connection broke before the server sent the run's id. To find the run: \`${PROGRAM} runs --kind task\`.`,
  );
export const NO_REASON = "The server reported an error without a reason.";
export const takesNoQuestions = (url: string) => unavailable(`The server at ${url} does not offer \`ask\`.`);
export const unsavedImages = (count: number) => `Images: ${count}. To save them, add --save <directory>.`;
export const wrongVariable = (text: string) => usage(`--env must be NAME=value, not: ${text}`);

// connect

export const onlyByProcess = (client: string) =>
  usage(`${client} cannot send a header: use --transport stdio.`);
export const noProjectFile = (client: string) =>
  usage(`${client} has no configuration for a project: leave --project out.`);
export const clientFileUnchanged = (file: string, { message }: Error) =>
  failed(`${file} was not changed: ${message}. --print shows the configuration for this file.`);

/** @param variable the environment variable or option that sets the directory; undefined if there is none */
export function noClientDirectory(directory: string, variable: string | undefined): CommandError {
  const remedy = variable === undefined ? "" : `: create it, or correct ${variable}`;
  return unavailable(`${directory} is not a directory${remedy}.`);
}

export const CONNECT = {
  unchanged: (client: string, file: string) => `${client} is connected already: ${file}`,
  replace: (file: string, name: string) => `${file} has a server "${name}" already. Replace it?`,
  copy: (copy: string) => `A copy of the earlier file: ${copy}`,
  holdsToken:
    "The file contains the token: do not commit it, and do not mount this directory into a sandbox.",
};

/** The error if a question needs an answer, but there is no terminal. */
export const confirmByOption = (question: string) => usage(`${question} Confirm with --yes.`);

// deploy, diagnose

export const notDeployable = (directory: string) =>
  unavailable(`${directory} has no wrangler.jsonc and Dockerfile: deploy from a clone of the repository.`);
export const noWrangler = (directory: string) =>
  unavailable(`wrangler is not installed in ${directory}: run npm ci there.`);
const DEPLOY_QUESTION = "This deploys to Cloudflare, where containers cost money while they run. Continue?";
export const deployByOption = () =>
  usage(`${DEPLOY_QUESTION} Confirm with --yes. --dry-run shows what it does.`);
export const DEPLOY = {
  question: DEPLOY_QUESTION,
  waiting: (reason: string) => `Waiting for the first container, which can take minutes. ${reason}`,
  verify: (url = "<url>") => `To try the server: ${PROGRAM} verify ${url} <token>`,
  connect: (url = "<url>") => `To connect a client: ${PROGRAM} connect <client> --url ${url} --token <token>`,
  unchanged: "Nothing was changed.",
};
export const REPORT_NOTE =
  "The report has names of variables and sandboxes, but no values of secrets. Read it before you send it.";

// files

export const noRemotePath = () =>
  usage("Give the path of the file in the sandbox. Its content comes from standard input.");
export const bothToOutput = () => usage("--json and the file cannot both go to standard output.");
export const noContent = (remote: string) => refusedByServer(`The server sent no content for ${remote}.`);
export const fileExists = (path: string) => usage(`${path} exists already. --force replaces it.`);
export const downloadStopped = (remote: string) =>
  cancelled(`The download of ${remote} was stopped before its end. Nothing was saved.`);
export const downloadBroke = (remote: string, error: unknown) =>
  unavailable(`The download of ${remote} broke off: ${messageOf(error)}`);
export const notDirectory = (remote: string) =>
  usage(`${remote} is a file. Fetch it: ${PROGRAM} files get ${shellWord(remote)}`);
export const notLocalDirectory = (path: string) => `${path} is not a directory.`;
export const noLocalFile = (path: string) => unavailable(`There is no file ${path} on this machine.`);
export const notFile = (path: string) =>
  usage(
    `${path} is not a file. To send a directory, pack it: tar c ${shellWord(path)} | ${PROGRAM} files put - ${shellWord(`${basename(path) || "root"}.tar`)}`,
  );
export const MORE_ENTRIES = "... and more: list a subdirectory.";

// runs, shell

export const olderRuns = (cursor: string) =>
  `To list older runs: ${PROGRAM} runs --cursor ${shellWord(cursor)}`;

/** @param isPage whether the user asked for older runs than those of an earlier page */
export function noRuns(sandbox: string, kind: string | undefined, isPage: boolean): string {
  const runs = ["No", isPage ? "older" : "", kind, "runs"].filter(Boolean).join(" ");
  if (kind === "task") return `${runs}.`;
  return `${runs} in sandbox ${sandbox}. To list the sandboxes: ${PROGRAM} sandboxes`;
}

export const noTerminal = (sandbox: string) =>
  usage(`Standard input is not a terminal. For a script: ${PROGRAM} command --sandbox ${sandbox} '...'`);
export const DETACH_HINT = "Ctrl-] detaches.";
export const detached = (id: string) =>
  [
    `The run continues. To return to it: ${PROGRAM} shell --attach ${shellWord(id)}`,
    `To end it: ${PROGRAM} cancel ${shellWord(id)}`,
  ] as const;

// token

export const unknownScope = (scope: string) =>
  usage(`--scopes has "${scope}", which is not one of ${SCOPES.join(", ")}.`);
export const scopesNeedName = () => usage("--scopes needs --name: the owner's token allows everything.");
export const wrongTokenName = () => usage("--name must be 1 to 32 characters of a-z, 0-9 and -.");
export const setInEnvironment = (variable: string) =>
  usage(`${variable} is set in the environment. Change it there, and leave out --write.`);
export const notInFile = (file: string, variable: string) => unavailable(`${file} has no ${variable}.`);

/** @param until how long the previous token is valid, for example "until 2026-12-31T12:00:00Z" */
export const rotationUnderWay = (until: string) =>
  usage(
    `A rotation is under way: the previous token is valid ${until}, and clients may still use it. Another rotation would end the previous token immediately. To do so, pass --yes.`,
  );

/** @param file the local server's variables */
export const newOwnerToken = (file: string) => [
  `The owner's new token. When you set it, the old token immediately becomes invalid; \`${PROGRAM} token rotate\` keeps both valid for a time. To set it:`,
  "  on Cloudflare  npx wrangler secret put SERVER_AUTH_TOKEN",
  `  ${startLine().padEnd(13)}  SERVER_AUTH_TOKEN=... in ${file}, then start the server again`,
];
export const newNamedToken = (entry: object) => [
  "Add the token's hash to the server's list AUTH_TOKENS (a secret on Cloudflare, .dev.vars locally):",
  `  ${JSON.stringify(entry)}`,
];
export const rotationWritten = (file: string) =>
  `${file} has the new and the old token. Restart the server to accept both. Until then it accepts only the old token, and this command line uses that one.`;

/** On Cloudflare each `secret put` is a deployment. In this order the current token is valid throughout. */
export function rotationSteps(variables: Readonly<Record<string, string>>): string[] {
  const puts = Object.entries(variables).map(
    ([name, value]) =>
      `npx wrangler secret put ${name}   # ${name === "SERVER_AUTH_TOKEN" ? "the new token, above" : value}`,
  );
  return [
    "If an earlier rotation is still under way, wait for its end, because this rotation ends the older token immediately.",
    ...puts,
    `For \`${startLine()}\` instead: ${PROGRAM} token rotate --write, or set the same variables.`,
  ];
}

/** @param name of the token in AUTH_TOKENS; undefined for the owner's */
export function stepsAfterRotation(until: string, name: string | undefined): string[] {
  const [old, lost] =
    name === undefined
      ? [
          "SERVER_AUTH_TOKEN_PREVIOUS and SERVER_AUTH_TOKEN_PREVIOUS_UNTIL",
          " Sign-ins with the old token end then. Without LINK_KEY, links and previews that the old token signed end too.",
        ]
      : ["previous_sha256 and previous_until", ""];
  return [
    `Give the new token to its clients; ${PROGRAM} connect <client> writes it. The log has "via":"previous_token" for clients that still use the old one.`,
    `The old token ends at ${until}. Remove ${old} then, or as soon as nobody uses the old token.${lost}`,
  ];
}

// verify: reasons, as clauses

export const VERIFY = {
  task: "Answer with the word ready and nothing else. Use no tools.",
  tokenRemedy: `Use this server's SERVER_AUTH_TOKEN or one of its AUTH_TOKENS. For a server started with ${startLine()}, \`${PROGRAM} token show\` prints it.`,
  needs: (tool: string) => `not tried: this check needs ${tool}, which this server does not list`,
  unknownTool: "not tried: this command has no check for this tool",
  taskCosts: "not tried: a task costs some cents; --task runs one",
  leftOut: "not offered: the ?tools= of the address leaves this tool out",
  unlisted: "not offered: this server does not list this tool",
  notAllowed: (reason: string) => `not allowed: ${reason}`,
  leftBehind: (reason: string, sandbox: string, wasDestroyed: boolean) =>
    `${reason}; ${sandbox} ${wasDestroyed ? "was destroyed" : "may still exist: delete it"}`,
  wrongStatus: (status: number, wanted: number) => `returned status ${status} instead of ${wanted}`,
  previewFailed: (url: string, { message }: Error) => `${url} does not respond from here: ${message}`,
  previewSilent: (ms: number) => `no data arrived within ${ms / 1000} s`,
  expected: (found: unknown, wanted: string) =>
    `expected ${JSON.stringify(wanted)}, got ${JSON.stringify(found)}`,
  missing: (text: string, wanted: string) =>
    `expected ${JSON.stringify(wanted)} in ${JSON.stringify(text.slice(0, 200))}`,
};
