/** The options of `npm start`. Flags take precedence over environment variables, and both over the defaults. */
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { shellWord } from "../src/shared/text.ts";
import { defaultStateDir, startLine } from "./program-files.ts";
import { takenByNPM, wrongChoice, wrongPort, wrongStartOptions } from "./texts.ts";

export const DEFAULT_PORT = 8787;

export const USAGE = `${startLine("[options]")}

  --port <number>                  where to listen on 127.0.0.1 (PORT; default 8787; 0 for any free port)
  --isolation bubblewrap|none      how sandboxes are isolated (SANDBOX_MCP_ISOLATION; default bubblewrap);
                                   with none, code in a sandbox can do all that you can do on this machine
  --network internet|none          what sandboxes may reach (SANDBOX_MCP_NETWORK; default internet, by HTTP and
                                   HTTPS, and never this machine or a private network)
  --state-dir <path>               where state is kept (SANDBOX_MCP_STATE_DIR; default .sandbox-mcp in the clone,
                                   ~/.local/state/sandbox-mcp for the package)
  --mount <dir>[=<name>][:ro|:rw]  show a directory of yours as /workspace/<its name>, in the sandbox <name> (default: a
                                   sandbox with the directory's name); read-only with :ro; may be repeated
  --python <path>                  the Python 3 that sandboxes get, with its packages (SANDBOX_MCP_PYTHON; default
                                   the first of your PATH; the server installs numpy, pandas, matplotlib and ipython
                                   for it once, in the state directory)
  --agents                         install Claude Code (360 MB) now; otherwise the first task installs it
  --open                           show the panel in a browser, once the server is ready
  --json                           print the server's address as one line of JSON when it is ready, or why it did not start
  --verbose                        show the logs, and the configuration for every client (SANDBOX_MCP_VERBOSE=1)
  --help                           show this

Examples:
  $ ${startLine("--open")}
  $ ${startLine("--port 0 --mount ~/project=build:ro --network none")}

The Worker's own variables (SERVER_AUTH_TOKEN, AUTH_TOKENS, ALLOWED_ORIGINS, ...) are taken from the environment, then
from .dev.vars. If neither has SERVER_AUTH_TOKEN, the server generates one and saves it in .dev.vars.`;

/** @param cwd the base of relative paths @returns undefined for help @throws {CommandError} naming the wrong option */
export function readOptions(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  cwd: string,
) {
  refuseSwallowed(argv, env);
  const flags = parse(argv);
  if (flags.help) return undefined;
  const flagOrVariable = (flag: string | undefined, variable: string) => {
    const fromEnv = env[variable]?.trim();
    if (flag !== undefined) return { value: flag, name: flagOf(variable) };
    return fromEnv ? { value: fromEnv, name: variable } : undefined;
  };
  const state = flagOrVariable(flags["state-dir"], "SANDBOX_MCP_STATE_DIR");
  const python = flagOrVariable(flags.python, "SANDBOX_MCP_PYTHON");
  return {
    port: readPort(flagOrVariable(flags.port, "PORT")),
    isolation: choose(flagOrVariable(flags.isolation, "SANDBOX_MCP_ISOLATION"), ["bubblewrap", "none"]),
    network: choose(flagOrVariable(flags.network, "SANDBOX_MCP_NETWORK"), ["internet", "none"]),
    stateDir: state ? resolve(cwd, state.value) : defaultStateDir(env),
    mounts: flags.mount ?? [],
    cwd,
    python: python && resolve(cwd, python.value),
    agents: flags.agents ?? false,
    open: flags.open ?? false,
    json: flags.json ?? false,
    isVerbose: flags.verbose ?? /^(1|true|yes)$/i.test(env.SANDBOX_MCP_VERBOSE ?? ""),
  };
}

interface OptionValue {
  value: string;
  name: string;
}

const FLAGS = {
  port: { type: "string" },
  isolation: { type: "string" },
  network: { type: "string" },
  "state-dir": { type: "string" },
  python: { type: "string" },
  mount: { type: "string", multiple: true },
  agents: { type: "boolean" },
  open: { type: "boolean" },
  json: { type: "boolean" },
  verbose: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

function parse(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: FLAGS, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw wrongStartOptions(error);
  }
}

/**
 * Refuses flags that npm took because `--` was missing before them. npm turns `--port=1` into npm_config_port=1, and `--port 1`
 * into npm_config_port=true with 1 among the arguments.
 */
function refuseSwallowed(argv: readonly string[], env: Readonly<Record<string, string | undefined>>): void {
  const swallowed = Object.entries(FLAGS).flatMap(([flag, { type }]) => {
    const values = type === "string" ? env[`npm_config_${flag.replaceAll("-", "_")}`]?.split("\n\n") : [];
    // --python=PATH is also a setting of npm, for node-gyp.
    return (values ?? []).flatMap((value) => (flag === "python" && value !== "true" ? [] : { flag, value }));
  });
  const switches = SWITCHES.filter((flag) => env[`npm_config_${flag}`] === "true").map((flag) => `--${flag}`);
  if (swallowed.length + switches.length === 0) return;
  const end = argv.findIndex((word) => word.startsWith("-"));
  const rest = end < 0 ? [] : argv.slice(end);
  const loose = argv.slice(0, argv.length - rest.length);
  const removeFirst = (pattern: RegExp) => {
    const at = loose.findIndex((word) => pattern.test(word));
    return at < 0 ? undefined : loose.splice(at, 1)[0];
  };
  const hints = swallowed.map(({ flag, value }) => {
    const pattern = VALUE_PATTERNS[flag];
    return { flag, value: value === "true" ? pattern && removeFirst(pattern) : value };
  });
  const open = new Set(hints.flatMap(({ flag, value }) => (value === undefined ? flag : [])));
  const words = hints.flatMap(({ flag, value }) => {
    // If npm took several flags, it is unknown which value belongs to which flag.
    const found = value ?? (open.size > 1 ? undefined : removeFirst(/^/));
    return [`--${flag}`, found === undefined ? "<value>" : shellWord(found)];
  });
  const line = [...words, ...switches, ...rest.map(shellWord)].join(" ");
  const names = [...new Set([...swallowed.map(({ flag }) => `--${flag}`), ...switches])];
  throw takenByNPM(names, `npm start -- ${line}`);
}

/** Flags without a value, except those that npm handles itself. */
const SWITCHES = ["agents", "open", "json"];

const VALUE_PATTERNS: Record<string, RegExp | undefined> = {
  port: /^\d+$/,
  isolation: /^(bubblewrap|none)$/,
  network: /^(internet|none)$/,
};

function flagOf(variable: string): string {
  return `--${variable.replace("SANDBOX_MCP_", "").toLowerCase().replaceAll("_", "-")}`;
}

function readPort(given: OptionValue | undefined): number {
  if (given === undefined) return DEFAULT_PORT;
  const port = /^\d{1,5}$/.test(given.value) ? Number(given.value) : Number.NaN;
  if (port >= 0 && port <= 65_535) return port;
  throw wrongPort(given);
}

/** The first of `choices` is the default. */
function choose<const T extends string>(given: OptionValue | undefined, choices: readonly [T, ...T[]]): T {
  if (given === undefined) return choices[0];
  const chosen = choices.find((choice) => choice === given.value);
  if (chosen !== undefined) return chosen;
  throw wrongChoice(given, choices);
}
