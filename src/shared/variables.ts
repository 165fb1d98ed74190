/**
 * The server's variables, each defined once. This table produces `Env`, the parser in config.ts, the reference in the docs,
 * .dev.vars.example and the Deploy button's questions. It also produces the names that `npm start` passes on, the list of
 * secrets, and the list of values that `diagnose` shows. After a change: `npm run docs`.
 */
import * as z from "zod";
import * as field from "./env-fields.ts";
import { LOG_LEVELS } from "./log.ts";
import { mountedDirectories } from "./mounted-directories.ts";
import { MODEL_NAME } from "./names.ts";
import { INTERNET } from "./network-policy.ts";
import { REGIONS } from "./principal.ts";
import { secretList } from "./secrets.ts";
import { authTokens } from "./static-tokens.ts";
import { TOOL_NAMES, describeWrongChoice } from "./tool-sets.ts";

export interface Variable<T = unknown> {
  /** Parses the text. An issue's message ends a sentence that begins with the variable's name. */
  schema: z.ZodType<T, string>;
  default?: NoInfer<T> | undefined;
  fallback?: string;
  /** `value`: must not be in a file that others read. `hashes`: reveals no credential, but is never shown. */
  secret?: "value" | "hashes" | false;
  /** The variable's description in docs/reference/variables.md, in Markdown. Links are relative to that page. */
  docs: string;
  example?: string;
  askAtDeploy?: string;
  /** `sdk`: the Sandbox SDK reads it. `local`: only `npm start` sets it. */
  reader?: "sdk" | "local";
  /** Other variables that must be set: one of each list. `why` ends the error's sentence. */
  needs?: readonly { oneOf: readonly string[]; why?: string }[];
}

type Defaulted<T> = Variable<T> & { default: NoInfer<T> };
type Optional<T> = Variable<T> & { default?: undefined };

/** Requires `secret`, except for a number or a choice, which cannot be one. */
type Decided<T> = string extends T ? Decision : T extends string | number ? unknown : Decision;
type Decision = Pick<Required<Variable>, "secret">;

function variable<T>(row: Defaulted<T> & Decided<T>): Defaulted<T>;
function variable<T>(row: Optional<T> & Decided<T>): Optional<T>;
function variable<T>(row: Variable<T>): Variable<T> {
  return row;
}

export function modelName() {
  return z.string().max(100).regex(MODEL_NAME, "must be the name of a model");
}

const access = {
  SERVER_AUTH_TOKEN: variable({
    schema: field.ownerToken,
    secret: "value",
    fallback: "`npm start` generates one; elsewhere the owner cannot sign in",
    docs: "The owner's token, with all scopes: 16 characters or more, and random.",
    askAtDeploy: "The owner's token: 16 characters or more, and random (openssl rand -hex 32)",
  }),
  SERVER_AUTH_TOKEN_PREVIOUS: variable({
    schema: field.ownerToken,
    secret: "value",
    docs: "The owner's token before a [rotation](cli.md#tokens). The server accepts it together with the new token.",
  }),
  SERVER_AUTH_TOKEN_PREVIOUS_UNTIL: variable({
    schema: field.time(),
    fallback: "the previous token is valid until you remove it",
    docs: "When the server stops accepting the previous token.",
    example: "2026-12-31T12:00:00Z",
  }),
  AUTH_TOKENS: variable({
    schema: z.string().transform(field.fromJSON).pipe(authTokens),
    secret: "hashes",
    docs: "More tokens, as JSON: [the fields of an entry](#an-entry-of-auth_tokens).",
    example:
      '[{"name": "ci", "sha256": "<64 hexadecimal digits>", "scopes": ["sandbox:read", "sandbox:exec"]}]',
  }),
  ALLOWED_ORIGINS: variable({
    schema: field.list(z.string().transform(field.anyOrigin)),
    secret: false,
    default: [],
    fallback: "none; a server on loopback accepts loopback origins",
    docs: "Origins of web pages that may call the server, separated by commas.",
  }),
};

const addresses = {
  PUBLIC_ORIGIN: variable({
    schema: z.string().transform(field.webOrigin),
    secret: false,
    fallback: "on loopback, the origin of the request",
    docs: "The server's address for clients, without a path. OAuth needs it.",
    example: "https://sandbox.example.com",
  }),
  PREVIEW_HOST: variable({
    schema: z.string().transform(field.hostName),
    secret: false,
    fallback: "`localhost` on loopback, else no previews",
    docs: "The host below which [previews](previews.md) get their addresses.",
    example: "preview.example.com",
  }),
  LINK_KEY: variable({
    schema: field.ownerToken,
    secret: "value",
    fallback: "derived from `SERVER_AUTH_TOKEN`, else a key that the server makes and keeps",
    docs: "The key that signs links to files and addresses of previews. A new key makes all earlier links and addresses invalid.",
    askAtDeploy: "The key that signs links and previews (openssl rand -hex 32)",
  }),
};

const signIn = {
  OAUTH_CLIENT_METADATA: variable({
    schema: field.choice(["on", "off"]),
    fallback: "`on`, except on loopback",
    docs: "Whether OAuth clients may identify themselves by a metadata document (`on`, `off`).",
  }),
  GITHUB_CLIENT_ID: variable({
    schema: field.visibleText("must be visible ASCII characters"),
    secret: false,
    docs: "Turns on [sign-in with GitHub](../internals/security.md#who-somebody-is): the client ID of an OAuth app.",
    needs: [
      { oneOf: ["GITHUB_CLIENT_SECRET"] },
      { oneOf: ["GITHUB_ALLOWED_USERS", "GITHUB_ALLOWED_ORG"], why: ": who may sign in" },
    ],
  }),
  GITHUB_CLIENT_SECRET: variable({
    schema: field.visibleText("must be visible ASCII characters"),
    secret: "value",
    docs: "The client secret of the OAuth app.",
    needs: [{ oneOf: ["GITHUB_CLIENT_ID"] }],
  }),
  GITHUB_ALLOWED_USERS: variable({
    schema: field.list(
      z
        .string()
        .toLowerCase()
        .regex(/^(?:[a-z0-9][a-z0-9_-]{0,63}|id:[1-9][0-9]{0,18})$/, "must be a login or id:<number>"),
    ),
    secret: false,
    default: [],
    fallback: "nobody",
    docs: "Who may sign in with GitHub: logins and account numbers, separated by commas.",
    example: "octocat, id:583231",
    needs: [{ oneOf: ["GITHUB_CLIENT_ID"] }],
  }),
  GITHUB_ALLOWED_ORG: variable({
    schema: z
      .string()
      .toLowerCase()
      .regex(/^[a-z0-9][a-z0-9_-]{0,63}$/, "must be the login of an organization"),
    secret: false,
    fallback: "nobody",
    docs: "A GitHub organization. Its active members may sign in.",
    needs: [{ oneOf: ["GITHUB_CLIENT_ID"] }],
  }),
  GITHUB_URL: variable({
    schema: z.string().transform(field.baseURL),
    secret: false,
    default: "https://github.com",
    docs: "GitHub's address, where people sign in. Set it for a GitHub Enterprise Server.",
  }),
  GITHUB_API_URL: variable({
    schema: z.string().transform(field.baseURL),
    secret: false,
    default: "https://api.github.com",
    docs: "The URL of GitHub's API. Set it for a GitHub Enterprise Server.",
  }),
  ACCESS_TEAM_DOMAIN: variable({
    schema: z
      .string()
      .transform((domain) => (domain.includes("://") ? domain : `https://${domain}`))
      .transform(field.webOrigin),
    secret: false,
    docs: "Turns on [sign-in by Cloudflare Access](../internals/security.md#who-somebody-is): the team's domain.",
    example: "team.cloudflareaccess.com",
    needs: [{ oneOf: ["ACCESS_AUDIENCE"] }],
  }),
  ACCESS_AUDIENCE: variable({
    schema: field.visibleText("must be the application's audience tag"),
    secret: false,
    docs: "The audience tag of the Access application.",
    needs: [{ oneOf: ["ACCESS_TEAM_DOMAIN"] }],
  }),
  ACCESS_CERTS_URL: variable({
    schema: z.string().transform(field.baseURL),
    secret: false,
    fallback: "the keys of the team's domain",
    docs: "The URL of the public keys of Access.",
  }),
};

const model = {
  ANTHROPIC_API_KEY: variable({
    schema: field.headerValue(),
    secret: "value",
    fallback: "`CLAUDE_CODE_OAUTH_TOKEN`; if neither is set, `execute_task` is not listed",
    docs: "The model's key, for [tasks and questions](tasks.md). The key never enters a sandbox.",
    askAtDeploy: "The model's key, for tasks and questions. The key never enters a sandbox",
  }),
  CLAUDE_CODE_OAUTH_TOKEN: variable({
    schema: field.headerValue(),
    secret: "value",
    docs: "A token of Claude Code for the model, used if `ANTHROPIC_API_KEY` is not set: `claude setup-token` [prints one](tasks.md).",
  }),
  ANTHROPIC_UPSTREAM_URL: variable({
    schema: z.string().transform(field.baseURL),
    secret: false,
    default: "https://api.anthropic.com",
    docs: "The address of the model's API.",
  }),
  QUESTION_MODEL: variable({
    schema: modelName(),
    secret: false,
    default: "claude-sonnet-5-5",
    docs: "The model that writes programs for [questions](tasks.md#questions).",
  }),
  MAX_TASK_TOKENS: variable({
    schema: field.count(999_999_999),
    default: 5_000_000,
    docs: "How many tokens of the model one task may use.",
  }),
  TASK_ARCHIVE_MAX_MB: variable({
    schema: field.count(4096, 0),
    default: 256,
    docs: "The limit of a task's [archive](tasks.md#from-start-to-end), in MiB. With `0` the server keeps no archive, and a task can be continued only while its sandbox runs.",
  }),
  COMPONENTS: variable({
    schema: z
      .string()
      .regex(/^[\w.-]+(\/[\w.-]+)*\/?$/, "must be a path in the bucket, such as components")
      .transform((prefix) => prefix.replace(/\/$/, "")),
    secret: false,
    docs: "The place of [definitions of agents and commands](tasks.md#definitions-of-agents-and-commands): with `npm start` the path of a folder, on Cloudflare a path in the bucket `RESULTS`.",
  }),
};

const limits = {
  MAX_SANDBOXES: variable({
    schema: field.count(100_000),
    default: 100,
    docs: "How many sandboxes one principal may have.",
  }),
  MAX_RUNNING_SANDBOXES: variable({
    schema: field.count(100_000),
    default: 10,
    docs: "How many containers of one principal may run at once. To start another one, the server [stops an idle container](../internals/security.md#containers-at-once).",
  }),
  MAX_CONCURRENT_RUNS: variable({
    schema: field.count(10_000),
    default: 50,
    docs: "How many runs of one principal may run at once. Background processes [do not count](../internals/security.md#what-the-quotas-count-and-what-they-do-not).",
  }),
  MAX_RUN_SECONDS_PER_DAY: variable({
    schema: field.count(100_000_000),
    default: 86_400,
    docs: "How many seconds all runs of one principal may take in a day (UTC).",
  }),
  MAX_MODEL_TOKENS_PER_DAY: variable({
    schema: field.count(999_999_999),
    default: 50_000_000,
    docs: "How many tokens of the model the tasks of one principal may use in a day (UTC).",
  }),
  IDLE_STOP_MINUTES: variable({
    schema: field.count(10_080),
    default: 10,
    docs: "How many minutes a container runs after its last use, unless `configure_sandbox` sets another time. The [costs](../guides/operate.md) depend on it.",
  }),
  MAX_IDLE_MINUTES: variable({
    schema: field.count(10_080),
    fallback: "the value of `IDLE_STOP_MINUTES`",
    docs: "The highest `idle_minutes` that `configure_sandbox` accepts.",
  }),
  KEEP_BUSY: variable({
    schema: field.count(720),
    docs: "How many hours longer a container runs while its [background processes](runs.md#background-processes) are busy.",
  }),
  SANDBOX_TTL_HOURS: variable({
    schema: field.count(87_600),
    default: 168,
    docs: "The server removes a sandbox that nobody has used for this many hours. Its saved workspace stays for `CHECKPOINT_TTL_DAYS`, and the next call starts the sandbox from it.",
  }),
};

const network = {
  DEFAULT_REGION: variable({
    schema: field.choice(REGIONS),
    fallback: "the platform chooses",
    docs: "The [region](configure.md#region) of new sandboxes on Cloudflare.",
  }),
  DEFAULT_INTERNET: variable({
    schema: field.choice(INTERNET),
    fallback: "the value of `MAX_INTERNET`",
    docs: "The [network](network.md) of a new sandbox: `full`, `allowlist` or `none`.",
  }),
  MAX_INTERNET: variable({
    schema: field.choice(INTERNET),
    default: "full",
    docs: "The widest network that a sandbox may have: `full`, `allowlist` or `none`.",
  }),
  ALLOW_HOSTS: variable({
    schema: field.allowHosts(field.list(z.string().transform(field.hostEntry))),
    secret: false,
    default: [],
    fallback: "none",
    docs: "The hosts that `allowlist` allows to a sandbox that has no list of its own. Write names, `*.name` and [`packages`](network.md), separated by commas. With `MAX_INTERNET=allowlist` no sandbox reaches other hosts.",
  }),
  SECRETS: variable({
    schema: z.string().transform(field.fromJSON).pipe(secretList),
    secret: "value",
    default: [],
    fallback: "none",
    docs: "[Keys that sandboxes use and never see](secrets.md), as JSON.",
    example:
      '[{"name": "api", "hosts": ["api.example.com"], "header": "Authorization: Bearer {value}", "value": "..."}]',
  }),
  GIT_SIGN_IN: variable({
    schema: field.choice(["on", "off"]),
    default: "on",
    docs: "Whether people can [sign in to git hosts](../guides/secrets.md#sign-in-to-a-git-host) for their sandboxes (`on`, `off`).",
  }),
};

const workspaces = {
  WORKSPACE_SAVE: variable({
    schema: field.choice(["on", "off"]),
    default: "on",
    docs: "Whether [workspaces survive](workspaces.md) their containers (`on`, `off`).",
  }),
  WORKSPACE_MAX_MB: variable({
    schema: field.count(10_000),
    default: 1024,
    docs: "The limit of one saved [workspace](workspaces.md#limits), in MiB.",
  }),
  MAX_WORKSPACES_MB: variable({
    schema: field.count(10_000_000),
    default: 10_240,
    docs: "The limit of all that the server saves for one principal, in MiB: workspaces, checkpoints, archives of tasks and results of set-ups.",
  }),
  MAX_CHECKPOINTS: variable({
    schema: field.count(10_000),
    default: 100,
    docs: "How many checkpoints one principal may have.",
  }),
  CHECKPOINT_TTL_DAYS: variable({
    schema: field.count(3650),
    default: 30,
    docs: "How many days the server keeps checkpoints, and saved workspaces after their last use.",
  }),
};

const runs = {
  RESULT_TTL_DAYS: variable({
    schema: field.count(3650),
    default: 30,
    docs: "How many days the server keeps results of runs.",
  }),
  MAX_STORAGE_MB: variable({
    schema: field.count(10_000_000),
    default: 2048,
    docs: "The limit of all results of one principal, in MiB. Beyond it, the server [deletes the oldest](runs.md#what-is-kept-and-when-it-is-safe).",
  }),
  RUN_LOG_MAX_MB: variable({
    schema: field.count(1024),
    default: 100,
    docs: "The limit of a run's [log](runs.md#what-is-kept-and-when-it-is-safe), in MiB.",
  }),
  MAX_WAIT_SECONDS: variable({
    schema: field.count(600),
    // Common clients give up after 60 seconds, even if they get notifications of progress.
    default: 50,
    docs: "How many seconds a call may wait for a run, up to 600. Raise it only if all your clients wait that long.",
  }),
};

const otherVariables = {
  TOOLS: variable({
    schema: field.list(z.string()).superRefine((words, { addIssue }) => {
      const message = describeWrongChoice(words, TOOL_NAMES);
      if (message) addIssue({ code: "custom", message });
    }),
    secret: false,
    fallback: "all",
    docs: "The tools that the server offers: [names and sets](tools.md#fewer-tools), separated by commas. `?tools=` chooses from them.",
  }),
  LOG_LEVEL: variable({
    schema: field.choice(LOG_LEVELS),
    default: "info",
    docs: "The lowest level that the server logs: `debug`, `info`, `warn` or `error`.",
  }),
  SANDBOX_TRANSPORT: variable({
    schema: field.choice(["http", "websocket", "rpc"]),
    reader: "sdk",
    fallback: "the SDK's default (`wrangler.jsonc` sets `rpc`)",
    docs: "How the Sandbox SDK reaches a container.",
  }),
  SANDBOX_LOG_LEVEL: variable({
    schema: field.choice(LOG_LEVELS),
    reader: "sdk",
    fallback: "the SDK's default (`wrangler.jsonc` sets `error`)",
    docs: "The log level of the Sandbox SDK.",
  }),
  MOUNTED_DIRECTORIES: variable({
    schema: z.string().transform(field.fromJSON).pipe(mountedDirectories),
    secret: false,
    reader: "local",
    default: [],
    docs: "The directories of `--mount`.",
  }),
  LOCAL_TOKEN_COMMAND: variable({
    schema: z.string(),
    secret: false,
    reader: "local",
    docs: "The command that prints the owner's token.",
  }),
  LOCAL_OPEN_FILES: variable({
    schema: z.coerce.number(),
    reader: "local",
    docs: "The most files that workerd can open.",
  }),
};

export const GROUPS = {
  "Who may call": access,
  Addresses: addresses,
  "Sign-in": signIn,
  "The model and tasks": model,
  Limits: limits,
  Network: network,
  Workspaces: workspaces,
  Runs: runs,
  "Tools and log": otherVariables,
} satisfies Record<string, Record<string, Variable>>;

export const variables = {
  ...access,
  ...addresses,
  ...signIn,
  ...model,
  ...limits,
  ...network,
  ...workspaces,
  ...runs,
  ...otherVariables,
};

export type VariableName = keyof typeof variables;

type ValueOf<V> = V extends Defaulted<infer T> ? T : V extends Variable<infer T> ? T | undefined : never;

type Fixed<T> = T extends readonly (infer E)[] ? readonly E[] : T;

export type Values = { readonly [N in VariableName]: Fixed<ValueOf<(typeof variables)[N]>> };

export const VARIABLES: [VariableName, Variable][] = Object.entries<Variable>(variables) as [
  VariableName,
  Variable,
][];

const namesOf = (isOne: (variable: Variable) => boolean): readonly string[] =>
  VARIABLES.flatMap(([name, row]) => (isOne(row) ? name : []));

export const OPERATOR_VARIABLES = namesOf(({ reader }) => reader !== "local");

export const SECRET_VARIABLES = namesOf(({ secret }) => secret === "value");

/** The variables that reports never show and that a deployment stores as secrets. */
export const HIDDEN_VARIABLES = namesOf(({ secret }) => Boolean(secret));

/** The value for a report: only valid numbers and choices, because other text may be private. */
export function shownValue(name: string, value: string): string {
  const row = VARIABLES.find(([known]) => known === name)?.[1];
  const isShown = !row?.secret && row?.schema.meta()?.isShowable === true;
  return isShown && row.schema.safeParse(value).success ? value : "(set)";
}
