/** The server of a command, and its token. */
import { resolve } from "node:path";
import { defaultStateDir, variablesFile } from "./program-files.ts";
import { findRunning } from "./running.ts";
import { previousTokenEnd } from "./rotation.ts";
import { readVariablesFile } from "./dev-vars.ts";
import * as texts from "./texts.ts";

/** The file of the local server's token, unless the environment has one. */
export const VARIABLES_FILE = variablesFile(process.env);

/** The absolute path of a path that the user typed. `npm run` changes the directory, and INIT_CWD is the user's directory. */
export function userPath(path = "."): string {
  const { npm_lifecycle_event: script, INIT_CWD } = process.env;
  return resolve(script === "cli" && INIT_CWD ? INIT_CWD : process.cwd(), path);
}

export interface ServerOptions {
  url?: string;
  token?: string;
  stateDir?: string;
}

export interface ServerAddress {
  url: string;
  token: string;
  tokenSource: string;
  isLocal: boolean;
  /** The previous token during a rotation: the local server uses it until its restart. */
  tokenBefore?: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

export function stateDirectory({ stateDir }: ServerOptions, env: Environment = process.env): string {
  const directory = stateDir ?? env.SANDBOX_MCP_STATE_DIR?.trim();
  return directory ? userPath(directory) : defaultStateDir(env);
}

const OPTIONS = { url: "--url", token: "--token" };

/** The server that the options or the environment name, or else the local server. No other server gets the local server's token. */
export function serverAddress(
  options: ServerOptions,
  env: Environment = process.env,
  words = OPTIONS,
): ServerAddress {
  const named = options.url ?? env.SANDBOX_MCP_URL?.trim();
  const local = findRunning(stateDirectory(options, env));
  if (named) {
    const url = endpoint(named, words.url);
    const isLocal = local !== undefined && new URL(url).origin === new URL(local.url).origin;
    return { url, isLocal, ...tokenFor(options, env, isLocal, words.token) };
  }
  if (local === undefined) throw texts.noLocalServer(words);
  return { url: local.url, isLocal: true, ...tokenFor(options, env, true, words.token) };
}

/** A server's MCP endpoint, also for a URL that is only an origin. @throws {CommandError} for an invalid HTTP URL */
export function endpoint(given: string, word = OPTIONS.url): string {
  const url = URL.canParse(given) ? new URL(given) : undefined;
  if (!url || !/^https?:$/.test(url.protocol)) throw texts.wrongURL(word, given);
  if (url.username !== "" || url.password !== "") throw texts.passwordInURL(word);
  if (url.pathname === "/") url.pathname = "/mcp";
  return url.href;
}

function tokenFor(
  options: ServerOptions,
  env: Environment,
  isLocal: boolean,
  word: string,
): Pick<ServerAddress, "token" | "tokenSource" | "tokenBefore"> {
  const fileVariables = isLocal ? readVariablesFile(VARIABLES_FILE) : {};
  const sources: [source: string, token: string | undefined][] = [
    [word, options.token],
    ["SANDBOX_MCP_TOKEN", env.SANDBOX_MCP_TOKEN],
  ];
  if (isLocal) {
    sources.push(["SERVER_AUTH_TOKEN of the environment", env.SERVER_AUTH_TOKEN]);
    sources.push([VARIABLES_FILE, fileVariables.SERVER_AUTH_TOKEN]);
  }
  for (const [tokenSource, given] of sources) {
    const token = given?.trim();
    if (!token) continue;
    if (!/^[\x21-\x7e]+$/.test(token)) throw texts.wrongToken(tokenSource);
    return { token, tokenSource, ...tokenBefore(token, fileVariables) };
  }
  throw isLocal ? texts.localTokenUnknown() : texts.tokenNeeded(word);
}

/** The previous token, from the local server's variables, while it is valid. */
function tokenBefore(
  token: string,
  variables: Readonly<Record<string, string>>,
): Pick<ServerAddress, "tokenBefore"> {
  const before = variables.SERVER_AUTH_TOKEN_PREVIOUS?.trim();
  const isRotated = variables.SERVER_AUTH_TOKEN?.trim() === token && previousTokenEnd(variables, undefined);
  return before && isRotated ? { tokenBefore: before } : {};
}
