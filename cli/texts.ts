/**
 * The command line's texts: errors, reasons, hints and notes. commands/texts.ts has the texts of single commands. announce.ts has
 * the texts that `npm start` prints when it is ready. An option's help is at the option's declaration.
 */
import { titlesWithout } from "../src/shared/languages.ts";
import { SESSION_NAME_RULE, sandboxNameRule } from "../src/shared/names.ts";
import { clause, messageOf, shellWord } from "../src/shared/text.ts";
import { cancelled, CommandError, denied, failed, unavailable, usage, UserError } from "./exit.ts";
import { PROGRAM, startLine } from "./program-files.ts";

// Arguments and options

/** Why a value is refused. commander prints the option's name before this text. */
export const WRONG_VALUE = {
  wholeNumber: (least: number, most: number) =>
    `It must be a whole number ${most === Infinity ? `of at least ${least}` : `from ${least} to ${most}`}.`,
  session: `It ${SESSION_NAME_RULE}.`,
  port: "It must be a port number from 1 to 65535.",
  server: "It must be 1 to 64 characters of A-Z, a-z, 0-9, - and _.",
  run: "It must be the id of a run.",
};

/** @param what the option or argument that has the name */
export const wrongSandboxName = (what: string, name: unknown) =>
  usage(`${what} ${sandboxNameRule(name)}, not ${JSON.stringify(name)}`);

/** @param what what the text is, such as "code" or "question" */
export const textTwice = (what: string) => usage(`Give the ${what} as an argument or as --file, not both.`);
export const noText = (what: string) =>
  usage(`No ${what} is given: pass it as an argument, with --file, or on standard input.`);

/** @param right the command line with `--` in front of the options */
export const takenByNPM = (names: readonly string[], right: string) =>
  usage(`npm used ${names.join(" and ")} for itself. Put -- before all options: ${right}`);
export const optionTooEarly = (option: string, command: string) =>
  usage(`Put ${option} after the command: ${PROGRAM} ${command} ${option} ...`);
export const wrongStartOptions = (error: unknown) =>
  usage(`${clause(messageOf(error))}. ${startLine("--help")} lists the options.`);
export const wrongPort = ({ name, value }: { name: string; value: string }) =>
  usage(`${name} must be a port number from 0 to 65535, not "${value}".`);
export const wrongChoice = ({ name, value }: { name: string; value: string }, choices: readonly string[]) =>
  usage(`${name} must be one of ${choices.join(", ")}, not "${value}".`);
export const notConfirmed = () => cancelled("Nothing was changed.");

/** How to get the stack of an unexpected error. */
export const STACK_HINT = "(SANDBOX_MCP_VERBOSE=1 shows the stack)";

// Files

export const unreadable = (path: string, error: unknown) =>
  unavailable(`${path} cannot be read: ${messageOf(error)}`);
/** @param mount a directory that a sandbox can change */
export const leadsOut = (path: string, target: string, mount: string) =>
  denied(
    `${path} leads to ${target} through a symbolic link in ${mount}, and code in a sandbox may have made this link. Name ${target} itself if you want it.`,
  );
export const unwritable = (path: string, why: string) => unavailable(`${path} cannot be written: ${why}`);
export const variablesUnreadable = (file: string, error: unknown) =>
  new UserError(`${file} cannot be read: ${messageOf(error)}`);
export const variablesUnchangeable = (file: string, names: readonly string[]) =>
  new UserError(
    `${file} is written in a way that this command cannot change safely: set ${names.join(", ")} there.`,
  );
export const tokenNotKept = (file: string, error: unknown) =>
  new UserError(
    `The token cannot be saved in ${file}: ${messageOf(error)}. Set SERVER_AUTH_TOKEN in the environment instead.`,
  );

/** Why a client's configuration is not changed, as clauses. */
export const CLIENT_FILE = {
  notYAML: (problem: string | undefined) =>
    problem === undefined
      ? "its YAML is a list or a single value, not a mapping"
      : `it is not valid YAML: ${problem}`,
  notTOML: (problem: string | undefined) => `it is not valid TOML: ${problem}`,
  notJSON: (offset: number | undefined) =>
    `it is not a JSON object (${offset === undefined ? "it is a list or a single value" : `the error is at character ${offset}`})`,
  unchangeable: "it is written in a way that this command cannot change safely",
  noTable: (key: string) => `its "${key}" is not a table of servers`,
  leadsOut: (target: string) => `a symbolic link in the project leads to ${target}`,
  brokenLink: "it is a symbolic link to a file that does not exist",
  readOnly: "it is read-only",
};

// The server of a command, and its token

/** @param words how the user names a server and its token: by options or arguments */
export const noLocalServer = (words: { url: string; token: string }) =>
  unavailable(
    `No local server is running. Start one with \`${startLine()}\`, or name a server with ${words.url} and ${words.token}.`,
  );
export const wrongURL = (word: string, given: string) =>
  usage(`${word} must be the address of a server, such as https://host/mcp, not ${given}`);

/** Does not repeat the URL, because logs and reports would contain it. */
export const passwordInURL = (word: string) =>
  usage(`${word} must not contain a user or a password: the token is the credential.`);
export const wrongToken = (source: string) =>
  usage(`${source} is not a token: it must be visible ASCII without spaces.`);
export const localTokenUnknown = () =>
  denied(
    `This command does not know the local server's token, because \`${startLine()}\` got it from its environment. Set SANDBOX_MCP_TOKEN to that token.`,
  );
export const tokenNeeded = (word: string) =>
  denied(`A token is needed: set SANDBOX_MCP_TOKEN, or pass ${word}.`);

/** @param problems why the server would refuse its owner's token */
export const wrongOwnerToken = (problems: readonly { message: string }[]) =>
  failed(`SERVER_AUTH_TOKEN ${problems.map(({ message }) => message).join("; ")}.`);
export const tokenGenerated = (file: string) => `Generated SERVER_AUTH_TOKEN and saved it in ${file}.`;
export const unknownToken = (name: string) => usage(`AUTH_TOKENS has no token "${name}".`);
export const wrongTokenList = () =>
  failed("AUTH_TOKENS is not a JSON list, so no token in it was replaced. Correct it in .dev.vars.");

// What a server responds

export const rejectedArguments = (reason: string) => usage(`The server rejected the arguments: ${reason}`);

export function noServer(url: string, reason: string, isLocal: boolean): CommandError {
  const remedy = isLocal
    ? ` Start it with \`${startLine()}\`.`
    : " Check the address, and that the server runs.";
  return unavailable(`No server responds at ${url} (${reason}).${remedy}`);
}

/** @param isInFile whether the token is from the file, which the server reads when it starts */
export function tokenRefused(url: string, source: string, reason: string, isInFile: boolean): CommandError {
  const remedy = isInFile
    ? "\nIf the token was changed since that server started, start the server again."
    : "\nUse a token of that server.";
  return denied(`${url} does not accept the token of ${source}: ${reason}${remedy}`);
}

export const unexpectedResponse = (url: string, status: number, body: string) =>
  `${url} responded with status ${status}: ${body.slice(0, 500)}`;

// Runs

export const STOPPING = "Stopping the run ...";
export const RECONNECTING = "The connection broke; retrying ...";
export const RETRYING = "The server is too busy or has a problem; retrying ...";
export const returnTo = (id: string) =>
  [
    `The run continues. To follow it: ${PROGRAM} result ${shellWord(id)}`,
    `To stop it: ${PROGRAM} cancel ${shellWord(id)}`,
  ] as const;
export const exitCodeReplaced = (exitCode: number | undefined, status: number) =>
  `The program's exit code was ${exitCode}. This command uses that status for another purpose, so it exits with ${status} instead.`;
export const runDisconnected = ({ kind, message }: CommandError, id: string) =>
  new CommandError(kind, [message, ...returnTo(id)].join("\n"));
export const moreFiles = (count: number) => `... and ${count} more files`;
export const continueFrom = (id: string) =>
  `To continue where the task ended: ${PROGRAM} execute --continue-from ${shellWord(id)} "..."`;

// The bridge of `stdio`, and the local server that it starts

const MAY_GO_ON = "A run that the call started may continue: list_runs shows it.";
export const BRIDGE_BROKE = `The connection to the server broke. ${MAY_GO_ON}`;
export const BRIDGE_BROKE_BEFORE_RESPONSE = `The connection to the server broke before it responded. ${MAY_GO_ON}`;
export const tokenChanged = ({ kind, message }: CommandError) =>
  new CommandError(
    kind,
    `${message}\nIf the token was changed, run \`${PROGRAM} connect <client>\` to write the new one, and start the client again.`,
  );
export const notJSONRPC = (error: unknown) =>
  `This is not a JSON-RPC message: ${messageOf(error).slice(0, 300)}`;
export const startingLocalServer = (words: readonly string[]) =>
  `Starting the local server (${words.join(" ")}) ...`;
export const localServerFailed = (output: string) => unavailable(`The local server did not start. ${output}`);

// `npm start`: the machine

/** The beginning of the error's text, by which `LocalServer` recognizes the error. */
export const DIRECTORY_IN_USE = "Another server is using the state directory";
export const stateDirectoryInUse = (directory: string) =>
  new UserError(
    `${DIRECTORY_IN_USE} ${directory}. Stop that server, or use another directory: --state-dir <path>.`,
  );
export const noParentDirectory = (parent: string, directory: string) =>
  new UserError(
    `${parent} does not exist, so the state directory ${directory} cannot be made. Make ${parent}, or choose another state directory: --state-dir <path>.`,
  );
export const stateDirectoryUnwritable = (directory: string, error: unknown) =>
  new UserError(
    `The state directory ${directory} cannot be made or written (${messageOf(error)}). Give it to this user (chown -R), or choose another: --state-dir <path>.`,
  );
export const stateDirectoryFull = (directory: string) =>
  new UserError(
    `The disk of the state directory ${directory} is full. Free space on it, or choose another: --state-dir <path>.`,
  );
export const otherStateVersion = (directory: string, data: string) =>
  new UserError(
    `The state directory ${directory} has data of another version of this server, which this version does not read. To begin anew without its sandboxes, results and sign-ins, delete ${data}, or choose another state directory: --state-dir <path>.`,
  );
export const closedToOthers = (directory: string) =>
  `Other users could open the state directory ${directory}. Its mode was changed, so that now only its owner can open it.`;
export const openToOthers = (directory: string, uid: number) =>
  `WARNING: the state directory ${directory} ` +
  `${uid === process.getuid?.() ? "is open to other users" : `belongs to another user (${uid})`}, ` +
  "who can read the server's keys and change its programs. Make it private (chown -R, chmod 700), or choose another: --state-dir <path>.";
export const portInUse = (port: number) =>
  new UserError(
    `Port ${port} is in use. Stop the program that listens there, or choose another port: --port <number>.`,
  );
export const mayNotListen = (reason: string) =>
  new UserError(`The server has no permission to listen: ${reason}. Choose another port: --port <number>.`);

export function needsLinux(platform: string): UserError {
  const name = { darwin: "macOS", win32: "Windows" }[platform] ?? platform;
  const other = platform === "win32" ? `, or run ${startLine()} inside WSL 2.` : ".";
  return new UserError(
    `${startLine()} isolates sandboxes with bubblewrap, which needs Linux; this is ${name}.\n` +
      `In a clone, use \`npm run dev:docker\`, which runs the sandboxes in Docker${other}`,
  );
}

export const INSTALLING_BUBBLEWRAP = "Installing bubblewrap with apt-get ...";
export const bubblewrapNotInstalled = (remedy: string, error: unknown) =>
  new UserError(`bubblewrap could not be installed. ${remedy}\n${messageOf(error)}`);
export const noSandboxes = ({ reason, remedy }: { reason: string; remedy: string }) =>
  new UserError(
    `Sandboxes cannot be made: ${reason}.\n${remedy}\n` +
      `To run without isolation, where sandboxed code can do all that you can: ${startLine("--isolation none")}`,
  );
export const engineEnded = (how: string) =>
  new Error(`The sandbox engine ended before it was ready (${how}).`);
export const workerNotBuilt = (detail: string) => `The Worker does not build:\n${detail.trim()}`;
export const noModule = (output: string) => new Error(`wrangler wrote no module to ${output}.`);
export const scratchUnwritable = (directory: string, error: unknown) =>
  new UserError(
    `The server cannot start: its Worker is built in ${directory}, which cannot be written (${messageOf(error)}). Give this directory to the user who starts the server (chown -R), or start the server as the owner of this clone.`,
  );

// `npm start`: --mount, COMPONENTS and --python

/** @param given the value of --mount */
export const wrongMount = (given: string, why: string) => new UserError(`--mount ${given}: ${why}`);
export const mountRefused = (given: string, source: string, why: string) =>
  wrongMount(given, `${source} ${why}. Mount a directory of a project.`);

/** The reasons why a value of --mount is refused. */
export const MOUNT = {
  taken: (sandbox: string, source: string) =>
    `sandbox ${sandbox} already has ${source}. Name another sandbox: --mount DIR=NAME.`,
  wrongName: (name: string) => `the name of a sandbox ${sandboxNameRule(name)}, not "${name}".`,
  nameNeeded: "name its sandbox: --mount DIR=NAME.",
  notDirectory: (path: string) => `${path} is not a directory.`,
  missing: (path: string) => `there is no directory ${path}.`,
  linked: (link: string, source: string) =>
    `${link} is a symbolic link, which code in a sandbox could have made. If you mean ${source}, name that: --mount ${source}`,
  unreadable: (path: string) => `you may not read ${path}.`,
  unwritable: (path: string) => `you may not write to ${path}. You can mount it read-only: --mount DIR:ro.`,
};

/** Why a directory must not be mounted. */
export const UNMOUNTABLE = {
  machine: "is the root directory, which contains everything on this machine",
  home: "is your home directory",
  aboveHome: "contains your home directory",
  aboveOwn: (directory: string) => `contains the server's own ${directory}`,
  inOwn: (directory: string) => `is inside the server's own ${directory}`,
  hidden: "is a hidden directory in a home directory, which may contain keys and settings",
  system: "belongs to the system",
};
export const mountNested = (inner: string, outer: string) =>
  wrongMount(
    inner,
    `code in the sandbox of ${outer} could replace this directory with a link to another one. Mount ${outer} read-only (:ro), or mount only one of them.`,
  );
export const usedInMount = (setting: string, path: string, mounted: string) =>
  new UserError(
    `${setting}: the server itself uses ${path}, and code in the sandbox of ${mounted} could change it. Mount ${mounted} read-only (:ro), or choose another place.`,
  );
export const placeIgnored = (path: string) =>
  `The server ignores ${path}: through a directory of --mount, code in a sandbox could change this path or a program in it. A variable names this path (PATH, PIP_CONFIG_FILE, NODE_EXTRA_CA_CERTS, ...).`;
export const mountEmpty = () => new UserError("--mount needs a directory: --mount DIR[=NAME][:ro|:rw].");
export const mountNeedsIsolation = () =>
  new UserError(
    "--mount needs isolation: with --isolation none sandboxes see all your directories. Leave out one of the two options.",
  );
export const componentsUnreadable = (path: string, error: unknown) =>
  new UserError(
    `COMPONENTS: the folder ${path} cannot be read (${messageOf(error)}). Correct the path, or make the folder readable.`,
  );
export const noComponents = (path: string) =>
  new UserError(
    `COMPONENTS: ${path} has neither agents/ nor commands/. Put the definitions into these folders, as in the .claude directory of a repository.`,
  );
export const notPython = (given: string) =>
  new UserError(
    `--python ${given} does not run as Python 3. Give the path of a Python 3 interpreter that starts within 30 seconds.`,
  );
export const NO_PYTHON = `python3 is not installed, so sandboxes run only ${titlesWithout("python").join(", ")} and commands.`;
const keepsPython = (executable: string) =>
  `--python ${executable} makes sandboxes use your Python without these libraries.`;

/** The libraries of the sandboxes' Python. @param libraries their names, as a list */
export const PYTHON = {
  installing: (libraries: string, executable: string) =>
    `Python: installing ${libraries} for sandboxes that use ${executable}, in the background.`,
  installed: (libraries: string, executable: string) =>
    `Python: sandboxes that start from now on use ${executable}, with ${libraries}.`,
  other: (reason: string, other: string, own: string) =>
    `Python: pip could not install the libraries (${reason}). Sandboxes use ${other}, which has them; ${keepsPython(own)}`,
  installingDebian: (reason: string, system: string) =>
    `Python: pip could not install the libraries (${reason}). Installing Debian's packages for ${system} with apt-get.`,
  installedDebian: (libraries: string, system: string, own: string) =>
    `Python: sandboxes that start from now on use ${system}, with ${libraries}; ${keepsPython(own)}`,
  failed: (libraries: string, reason: string, executable: string, remedy: string) =>
    `Python: sandboxes lack ${libraries} (${reason}). Install them for ${executable}${remedy}, or choose ` +
    "another interpreter: --python PATH. If you do neither, the server tries again when it is started more than a day later.",
};

// `npm start`: other notes, and its end

export const agentReady = (program: string | undefined) => `Claude Code is ready: ${program}`;
export const agentNotReady = (error: unknown) =>
  new UserError(
    `${messageOf(error)} Without --agents the server starts, and the first task tries the installation again.`,
  );
export const SECRETS_UNUSED =
  "SECRETS is not used: with --isolation none, no proxy can add secrets to the requests of a sandbox.";
export const noBrowser = (url: string) =>
  `No browser could be opened (xdg-open is not installed): open ${url}`;
const WORKSPACES_KEPT = "The last saved state of each workspace is kept.";
const SAVED_BEFORE = "Their previous saves are intact.";

/** Why the server ends by itself. */
export const ENDING = {
  parent: "The program that started this server has ended, so the server stops.",
  engine: (how: string) =>
    `The sandbox engine stopped unexpectedly (${how}), so the server stops. ${WORKSPACES_KEPT} Start the server again.`,
  workerd: `workerd stopped unexpectedly too often, or could not be started again, so the server stops. ${WORKSPACES_KEPT} Start the server again.`,
};
export const WORKERD_RESTARTED =
  "workerd stopped unexpectedly, and was started again. Calls in progress failed, and code that ran is lost. Sandboxes, their files and their commands continue.";
export const SAVING = {
  started: "Saving workspaces; another Ctrl-C stops immediately.",
  unsaved: (count: number) => `Workspaces that could not be saved: ${count}. ${SAVED_BEFORE}`,
  aborted: "Stopped before all workspaces were saved.",
  /** @param running how many sandboxes ran, if known */
  unconfirmed: (running: number | undefined) =>
    `The server did not respond: workspaces${running === undefined ? "" : ` of ${running} running sandboxes`} may be unsaved. ${SAVED_BEFORE}`,
};

// `npm run dev:docker`

export const NO_DOCKER = "Docker is not running, or not installed: see https://docs.docker.com/get-docker/.";
export const tokenOnlyInFile = (file: string) =>
  `wrangler dev reads SERVER_AUTH_TOKEN only from ${file}, but the environment has another value. Unset the variable in the environment.`;

// Checks of `doctor`, `validate` and `verify`

export const ALL_IS_WELL = "All is well.";
export const VERDICTS = { failed: "Failed", warning: "Warning", skipped: "Not tried" } as const;

// `deploy`, step by step

export const DEPLOYMENT = {
  stopped: "Stopped. Finished steps are kept. Run the command again to continue.",
  validate: (config: string) => `check ${config}: ${PROGRAM} validate`,
  docker: "check that Docker runs, to build the image: docker info",
  hosts: (routes: string, config: string) => `write ${routes} into ${config}`,
  secrets:
    "list the server's secrets; for a new server, generate SERVER_AUTH_TOKEN (unless given) and LINK_KEY: npx wrangler secret list",
  logIn: "check the login: npx wrangler whoami; if nobody is logged in, npx wrangler login",
  storage:
    "nothing to do now: wrangler deploy creates the R2 bucket RESULTS and the KV namespace OAUTH_KV if they are missing; R2 must be enabled for the account",
  build: "build sandboxd for the image, and the Worker",
  deploy:
    "build the image with Docker, upload image and Worker, and set the secrets: npx wrangler deploy --secrets-file ...",
  wildcard: (host: string) =>
    `add to the DNS of the host's zone: AAAA, *.${host}, 100::, proxied; the zone's certificate must cover this name (docs/guides/deploy.md)`,
  token: (token: string) => `The owner's token (save it now, it cannot be shown again): ${token}`,
};
export const configurationWrong = (config: string, lines: readonly string[]) =>
  failed(`Correct ${config} first:\n${lines.join("\n")}`);
export const dockerMissing = (found: string, fix: string | undefined) =>
  unavailable(`Docker is needed to build the image: ${found}. ${fix}`);
export const wrongHost = (flag: string, why: string | undefined) => usage(`${flag} ${why}.`);
export const notLoggedIn = () =>
  denied(
    "Nobody is logged in to Cloudflare: set CLOUDFLARE_API_TOKEN, or run npx wrangler login on a terminal.",
  );
export const loginIncomplete = () =>
  denied("The login was not completed. Run npx wrangler login, then this command again.");
export const noOwnerToken = () =>
  usage(
    `The deployed server has no SERVER_AUTH_TOKEN yet: set the variable for this command, which stores it as a secret. \`${PROGRAM} token new\` makes one.`,
  );
export const secretsUnknown = (output: string) =>
  failed(
    `wrangler could not list the server's secrets. Correct the cause, then run this command again.\n${output.trim()}`,
  );
export const predeployFailed = (output: string) =>
  failed(`npm run predeploy failed. Correct the cause, then run this command again.\n${output.trim()}`);
export const deployFailed = () =>
  failed("wrangler deploy failed; its output above says why. Correct that, and run this command again.");
export const programNotStarted = (program: string, { message }: Error) =>
  unavailable(`${program} does not start: ${message}`);
