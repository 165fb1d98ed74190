/** The Worker's bindings and variables, and their one parsed form. */
import { z } from "zod";
import { REGIONS, type Region, SCOPES, TOKEN_NAME, type Scope } from "./principal.ts";
import { LOG_LEVELS, type LogLevel } from "./log.ts";
import { type AccessConfig, signInOf, signInVariables, type GitHubConfig } from "./sign-in-config.ts";
import { type MountedDirectory, mountedDirectories } from "./mounts.ts";
import { INTERNET, type Internet, MOST_HOSTS } from "./network-policy.ts";
import {
  baseURL,
  anyOrigin,
  headerValue,
  hostEntry,
  hostName,
  list,
  ownerToken,
  unique,
  variable,
  webOrigin,
} from "./env-fields.ts";
import { modelName } from "./names.ts";
import { MODEL_HOST, type Secret, SERVER, secretList, secretsAt, secretsFor } from "./secrets.ts";
import { TOOL_NAMES, type ToolName, toolsChosen, wrongChoice } from "./tool-sets.ts";
import type { VARIABLES } from "./variables.ts";

/** The highest wait_seconds unless the operator sets another: common clients give up after 60 seconds, whatever the progress. */
export const MAX_WAIT_SECONDS = 50;

/**
 * The bindings and variables that the platform gives the Worker. The namespaces have no types here, because this folder
 * does not import `src/actors`. Variables are as the operator wrote them: read them through `parseConfig`.
 */
export interface Env {
  Sandbox: DurableObjectNamespace;
  Account: DurableObjectNamespace;
  SERVER_AUTH_TOKEN?: string;
  SERVER_AUTH_TOKEN_PREVIOUS?: string;
  SERVER_AUTH_TOKEN_PREVIOUS_UNTIL?: string;
  AUTH_TOKENS?: string;
  ALLOWED_ORIGINS?: string;
  PUBLIC_ORIGIN?: string;
  PREVIEW_HOST?: string;
  LINK_KEY?: string;
  /** Stores OAuth's clients, grants and tokens. Without it OAuth is off. */
  OAUTH_KV?: KVNamespace;
  /** Counts wrong owner's tokens. Without it nobody can sign in with that token. */
  Attempts?: DurableObjectNamespace;
  OAUTH_CLIENT_METADATA?: string;
  GITHUB_CLIENT_ID?: string;
  GITHUB_CLIENT_SECRET?: string;
  GITHUB_ALLOWED_USERS?: string;
  GITHUB_ALLOWED_ORG?: string;
  GITHUB_URL?: string;
  GITHUB_API_URL?: string;
  ACCESS_TEAM_DOMAIN?: string;
  ACCESS_AUDIENCE?: string;
  ACCESS_CERTS_URL?: string;
  LOG_LEVEL?: string;
  RESULT_TTL_DAYS?: string;
  RUN_LOG_MAX_MB?: string;
  ANTHROPIC_API_KEY?: string;
  CLAUDE_CODE_OAUTH_TOKEN?: string;
  ANTHROPIC_UPSTREAM_URL?: string;
  QUESTION_MODEL?: string;
  MAX_TASK_TOKENS?: string;
  TASK_ARCHIVE_MAX_MB?: string;
  COMPONENTS?: string;
  /** The folder of definitions for tasks, on the local platform only. It goes before `COMPONENTS`. */
  COMPONENTS_FOLDER?: Fetcher;
  MAX_SANDBOXES?: string;
  MAX_RUNNING_SANDBOXES?: string;
  MAX_CONCURRENT_RUNS?: string;
  MAX_RUN_SECONDS_PER_DAY?: string;
  MAX_MODEL_TOKENS_PER_DAY?: string;
  MAX_STORAGE_MB?: string;
  SANDBOX_TTL_HOURS?: string;
  WORKSPACE_SAVE?: string;
  WORKSPACE_MAX_MB?: string;
  MAX_WORKSPACES_MB?: string;
  MAX_CHECKPOINTS?: string;
  CHECKPOINT_TTL_DAYS?: string;
  DEFAULT_REGION?: string;
  DEFAULT_INTERNET?: string;
  MAX_INTERNET?: string;
  ALLOW_HOSTS?: string;
  SECRETS?: string;
  MAX_WAIT_SECONDS?: string;
  TOOLS?: string;
  MOUNTED_DIRECTORIES?: string;
  LOCAL_TOKEN_COMMAND?: string;
  /** Stores logs, results and artifacts of runs. */
  RESULTS: R2Bucket;
  /** Limits the calls of one principal. Without it they are not limited. */
  RATE_LIMITER?: RateLimit;
  /** Limits the requests of one address that make OAuth write. Without it a limiter of this process does. */
  ADDRESS_LIMITER?: RateLimit;
  /** Read by the Sandbox SDK itself. */
  SANDBOX_TRANSPORT?: string;
  SANDBOX_LOG_LEVEL?: string;
}

/** A static token, of which the server knows the hash only. */
export interface StaticToken {
  name: string;
  /** SHA-256 of the token's UTF-8 bytes, lower-case hexadecimal. */
  sha256: string;
  scopes: readonly Scope[];
  /** The SHA-256 of the token that this one replaces. */
  previous?: Previous | undefined;
  /** Where its sandboxes are made. */
  region?: Region | undefined;
  /** The most that its sandboxes may reach. */
  internet?: Internet | undefined;
  allowHosts?: readonly string[] | undefined;
}

/** What was replaced by a rotation, and is accepted beside the new one. */
export interface Previous {
  value: string;
  /** Milliseconds since the epoch from which it is refused; Infinity while the configuration has it. */
  until: number;
}

/** What sandboxes reach, for all principals. */
export interface NetworkConfig {
  /** Of a sandbox that says nothing; undefined for the most that there is. */
  initial: Internet | undefined;
  /** The most that anybody may choose. */
  max: Internet;
  /** The list of a sandbox that has none of its own; where `max` is `allowlist`, the most that one may hold. */
  allowHosts: readonly string[];
}

/** For coding agents. */
export interface TaskConfig {
  /** The model's API, without a trailing slash. */
  anthropicURL: string;
  /** The model that writes programs for questions that name none. */
  questionModel: string;
  /** Tokens that one task may use. */
  maxTokens: number;
  /** How much of a task's workspace is kept, in MiB. */
  archiveMaxMiB: number;
  /** Below what prefix of the bucket there are definitions for tasks, without a slash at its end; undefined for nowhere. */
  componentsPrefix: string | undefined;
}

/** For workspaces that survive their containers. */
export interface WorkspaceConfig {
  isSaved: boolean;
  /** Bytes of the files of one workspace that are saved. */
  maxBytes: number;
  /** How long a checkpoint lives, and a saved workspace after its last use. */
  ttlDays: number;
}

export interface Config {
  /** The token of principal `owner`; undefined when there is none. */
  serverAuthToken: string | undefined;
  /** The token before that one; `ownerTokens` says which are accepted. */
  previousToken: Previous | undefined;
  authTokens: readonly StaticToken[];
  /** Origins of browser pages that may call, serialised as browsers send them. */
  allowedOrigins: ReadonlySet<string>;
  /** The public origin of this server, without a trailing slash; undefined when not set. */
  publicOrigin: string | undefined;
  /** The host, with its port where it needs one, below which every name is a preview's; undefined when not said. */
  previewHost: string | undefined;
  /** What signs the addresses that the server hands out; undefined when not said. */
  linkKey: string | undefined;
  /** Whether OAuth clients may identify themselves by a metadata document; undefined when not set. */
  clientMetadata: boolean | undefined;
  github: GitHubConfig | undefined;
  access: AccessConfig | undefined;
  logLevel: LogLevel;
  /** Days for which the record of a run is kept after its end. */
  resultTTLDays: number;
  /** How much of a run's output is kept, in MiB. */
  runLogMaxMiB: number;
  limits: Limits;
  /** How long a sandbox may be idle before it is destroyed, hours. */
  sandboxTTLHours: number;
  /** Where sandboxes are made; undefined for the platform's choice. */
  defaultRegion: Region | undefined;
  network: NetworkConfig;
  /** What is added to requests of sandboxes: the model's credential, and the operator's. */
  secrets: readonly Secret[];
  /** How long a call may wait for a run, seconds. */
  maxWaitSeconds: number;
  /** Those that MCP offers. */
  tools: ReadonlySet<ToolName>;
  tasks: TaskConfig;
  workspaces: WorkspaceConfig;
  /** On the local platform only. */
  mounts: readonly MountedDirectory[];
  /** The command that prints the owner's token, on the local platform only: its pages name it. */
  localTokenCommand: string | undefined;
}

/** Whether the server has a credential for a model, which tasks and questions need. */
export function canRunTasks({ secrets }: Pick<Config, "secrets">): boolean {
  return secretsAt(secretsFor(secrets, SERVER), MODEL_HOST).length > 0;
}

/** What one principal may use. */
export interface Limits {
  sandboxes: number;
  /** Sandboxes whose container runs. */
  runningSandboxes: number;
  concurrentRuns: number;
  /** Seconds of running within one day (UTC), over all runs. */
  runSecondsPerDay: number;
  /** Tokens of the model within one day (UTC), over all tasks. */
  modelTokensPerDay: number;
  /** Bytes of records, logs and artifacts, over all runs. */
  storageBytes: number;
  /** Bytes of what is kept of workspaces, checkpoints and archives of tasks. */
  workspaceBytes: number;
  checkpoints: number;
}

/** The configuration is invalid. Each problem is a sentence that names a variable, and never shows its value. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join(" "));
    this.problems = problems;
  }
}

const parsed = new WeakMap<object, Config | ConfigError>();

/**
 * The configuration of `env`, parsed once per `env` object.
 * @throws {ConfigError} naming every variable that is wrong
 */
export function parseConfig(env: Env): Config {
  const known = parsed.get(env) ?? parse(env);
  parsed.set(env, known);
  if (known instanceof ConfigError) throw known;
  return known;
}

function parse(env: Env): Config | ConfigError {
  const result = variables.safeParse(env);
  if (!result.success) return new ConfigError(result.error.issues.map(sentence));
  const { data } = result;
  const { github, access, problems } = signInOf(data);
  if (hidesServer(data.PREVIEW_HOST, data.PUBLIC_ORIGIN))
    problems.push("PREVIEW_HOST must not be the host of PUBLIC_ORIGIN, nor one above it.");
  if (problems.length > 0) return new ConfigError(problems);
  return {
    serverAuthToken: data.SERVER_AUTH_TOKEN,
    previousToken: previous(data.SERVER_AUTH_TOKEN_PREVIOUS, data.SERVER_AUTH_TOKEN_PREVIOUS_UNTIL),
    authTokens: data.AUTH_TOKENS ?? [],
    allowedOrigins: new Set(data.ALLOWED_ORIGINS),
    publicOrigin: data.PUBLIC_ORIGIN,
    previewHost: data.PREVIEW_HOST,
    linkKey: data.LINK_KEY,
    clientMetadata:
      data.OAUTH_CLIENT_METADATA === undefined ? undefined : data.OAUTH_CLIENT_METADATA === "on",
    github,
    access,
    logLevel: data.LOG_LEVEL ?? "info",
    resultTTLDays: data.RESULT_TTL_DAYS ?? 30,
    runLogMaxMiB: data.RUN_LOG_MAX_MB ?? 100,
    limits: {
      sandboxes: data.MAX_SANDBOXES ?? 100,
      runningSandboxes: data.MAX_RUNNING_SANDBOXES ?? 10,
      concurrentRuns: data.MAX_CONCURRENT_RUNS ?? 50,
      runSecondsPerDay: data.MAX_RUN_SECONDS_PER_DAY ?? 86_400,
      modelTokensPerDay: data.MAX_MODEL_TOKENS_PER_DAY ?? 50_000_000,
      storageBytes: (data.MAX_STORAGE_MB ?? 2048) * 1024 * 1024,
      workspaceBytes: (data.MAX_WORKSPACES_MB ?? 10_240) * 1024 * 1024,
      checkpoints: data.MAX_CHECKPOINTS ?? 100,
    },
    sandboxTTLHours: data.SANDBOX_TTL_HOURS ?? 168,
    defaultRegion: data.DEFAULT_REGION,
    network: {
      initial: data.DEFAULT_INTERNET,
      max: data.MAX_INTERNET ?? "full",
      allowHosts: data.ALLOW_HOSTS ?? [],
    },
    secrets: [...modelSecrets(data.ANTHROPIC_API_KEY, data.CLAUDE_CODE_OAUTH_TOKEN), ...(data.SECRETS ?? [])],
    maxWaitSeconds: data.MAX_WAIT_SECONDS ?? MAX_WAIT_SECONDS,
    tools: data.TOOLS ? toolsChosen(data.TOOLS, TOOL_NAMES) : TOOL_NAMES,
    tasks: {
      anthropicURL: data.ANTHROPIC_UPSTREAM_URL ?? "https://api.anthropic.com",
      questionModel: data.QUESTION_MODEL ?? "claude-sonnet-5-5",
      maxTokens: data.MAX_TASK_TOKENS ?? 5_000_000,
      archiveMaxMiB: data.TASK_ARCHIVE_MAX_MB ?? 256,
      componentsPrefix: data.COMPONENTS,
    },
    workspaces: {
      isSaved: data.WORKSPACE_SAVE !== "off",
      maxBytes: (data.WORKSPACE_MAX_MB ?? 1024) * 1024 * 1024,
      ttlDays: data.CHECKPOINT_TTL_DAYS ?? 30,
    },
    mounts: data.MOUNTED_DIRECTORIES ?? [],
    localTokenCommand: data.LOCAL_TOKEN_COMMAND,
  };
}

const authTokens = z
  .array(
    z
      .strictObject(
        {
          name: z.string("is missing").regex(TOKEN_NAME, "must be 1 to 32 of a-z, 0-9 and -"),
          sha256: tokenHash(),
          scopes: z
            .array(z.enum(SCOPES, `must be one of ${SCOPES.join(", ")}`), "must be a list of scopes")
            .min(1, "must name at least one scope"),
          previous_sha256: tokenHash().optional(),
          previous_until: time().optional(),
          region: region().optional(),
          internet: internet().optional(),
          allow_hosts: allowHosts(
            z.array(z.string("must be text").transform(hostEntry), "must be a list of hosts"),
          ).optional(),
        },
        // The default message lists the unknown keys, and one could be a token pasted into the wrong place.
        "must be an object of name, sha256, scopes, previous_sha256, previous_until, region, internet and allow_hosts, and nothing else",
      )
      .transform(({ allow_hosts, previous_sha256, previous_until, ...token }) => ({
        ...token,
        previous: previous(previous_sha256, previous_until),
        allowHosts: allow_hosts,
      })),
    "must be a JSON list",
  )
  .refine((tokens) => unique(tokens.map((token) => token.name)), "must not use one name twice")
  .refine(
    // While a token is rotated, its entry may have the same hash twice.
    (tokens) =>
      unique(
        tokens.flatMap(({ sha256, previous: { value = sha256 } = {} }) => [...new Set([sha256, value])]),
      ),
    "must not give one token two names",
  );

const variables = z.object({
  SERVER_AUTH_TOKEN: variable(ownerToken),
  SERVER_AUTH_TOKEN_PREVIOUS: variable(ownerToken),
  SERVER_AUTH_TOKEN_PREVIOUS_UNTIL: variable(time()),
  AUTH_TOKENS: variable(z.string().transform(fromJSON).pipe(authTokens)),
  ALLOWED_ORIGINS: variable(list(z.string().transform(anyOrigin))),
  PUBLIC_ORIGIN: variable(z.string().transform(webOrigin)),
  PREVIEW_HOST: variable(z.string().transform(hostName)),
  LINK_KEY: variable(ownerToken),
  ...signInVariables,
  LOG_LEVEL: variable(
    z
      .string()
      .toLowerCase()
      .pipe(z.enum(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(", ")}`)),
  ),
  RESULT_TTL_DAYS: variable(count(3650)),
  RUN_LOG_MAX_MB: variable(count(1024)),
  ANTHROPIC_API_KEY: variable(headerValue()),
  CLAUDE_CODE_OAUTH_TOKEN: variable(headerValue()),
  ANTHROPIC_UPSTREAM_URL: variable(z.string().transform(baseURL)),
  QUESTION_MODEL: variable(modelName()),
  MAX_TASK_TOKENS: variable(count(999_999_999)),
  TASK_ARCHIVE_MAX_MB: variable(count(4096)),
  COMPONENTS: variable(
    z
      .string()
      .regex(/^[\w.-]+(\/[\w.-]+)*\/?$/, "must be a prefix of the bucket such as components")
      .transform((prefix) => prefix.replace(/\/$/, "")),
  ),
  MAX_SANDBOXES: variable(count(100_000)),
  MAX_RUNNING_SANDBOXES: variable(count(100_000)),
  MAX_CONCURRENT_RUNS: variable(count(10_000)),
  MAX_RUN_SECONDS_PER_DAY: variable(count(100_000_000)),
  MAX_MODEL_TOKENS_PER_DAY: variable(count(999_999_999)),
  MAX_STORAGE_MB: variable(count(10_000_000)),
  SANDBOX_TTL_HOURS: variable(count(87_600)),
  WORKSPACE_SAVE: variable(
    z
      .string()
      .toLowerCase()
      .pipe(z.enum(["on", "off"], "must be on or off")),
  ),
  WORKSPACE_MAX_MB: variable(count(10_000)),
  MAX_WORKSPACES_MB: variable(count(10_000_000)),
  MAX_CHECKPOINTS: variable(count(10_000)),
  CHECKPOINT_TTL_DAYS: variable(count(3650)),
  DEFAULT_REGION: variable(z.string().toLowerCase().pipe(region())),
  DEFAULT_INTERNET: variable(z.string().toLowerCase().pipe(internet())),
  MAX_INTERNET: variable(z.string().toLowerCase().pipe(internet())),
  ALLOW_HOSTS: variable(allowHosts(list(z.string().transform(hostEntry)))),
  SECRETS: variable(z.string().transform(fromJSON).pipe(secretList)),
  MAX_WAIT_SECONDS: variable(count(600)),
  TOOLS: variable(
    list(z.string()).superRefine((words, { addIssue }) => {
      const message = wrongChoice(words, TOOL_NAMES);
      if (message) addIssue({ code: "custom", message });
    }),
  ),
  MOUNTED_DIRECTORIES: variable(z.string().transform(fromJSON).pipe(mountedDirectories)),
  LOCAL_TOKEN_COMMAND: variable(z.string()),
} satisfies Record<(typeof VARIABLES)[number] | "MOUNTED_DIRECTORIES" | "LOCAL_TOKEN_COMMAND", z.ZodType>);

/** The model's credential: the key, or the token where there is no key. */
function modelSecrets(key: string | undefined, token: string | undefined): Secret[] {
  const value = key ?? token;
  if (value === undefined) return [];
  const place =
    key === undefined
      ? ({ in: "header", name: "authorization", template: "Bearer {value}" } as const)
      : ({ in: "header", name: "x-api-key", template: "{value}" } as const);
  return [{ name: "model", hosts: [MODEL_HOST], place, value, principals: [SERVER], variable: undefined }];
}

/** Whether the server itself would be taken for a preview, or share its cookies with all of them. */
function hidesServer(previewHost: string | undefined, publicOrigin: string | undefined): boolean {
  if (previewHost === undefined || publicOrigin === undefined) return false;
  const { hostname } = new URL(`https://${previewHost}`);
  return `.${new URL(publicOrigin).hostname}`.endsWith(`.${hostname}`);
}

function tokenHash() {
  return z
    .string("is missing")
    .regex(/^[0-9a-fA-F]{64}$/, "must be the SHA-256 of the token, 64 hexadecimal digits")
    .toLowerCase();
}

/** A moment with its time zone. @returns a schema for milliseconds since the epoch */
function time() {
  return z.iso
    .datetime({ offset: true, error: "must be a time with its zone, such as 2026-12-31T12:00:00Z" })
    .transform((text) => Date.parse(text));
}

function previous(value: string | undefined, until = Infinity): Previous | undefined {
  return value === undefined ? undefined : { value, until };
}

function region() {
  return z.enum(REGIONS, `must be one of ${REGIONS.join(", ")}`);
}

function internet() {
  return z.enum(INTERNET, `must be one of ${INTERNET.join(", ")}`);
}

function allowHosts<T extends z.ZodType<string[]>>(entries: T) {
  return entries.refine((hosts) => hosts.length <= MOST_HOSTS, `must hold ${MOST_HOSTS} hosts at most`);
}

/** A whole number of at least 1, as text. */
function count(max: number) {
  const message = `must be a whole number from 1 to ${max}`;
  return z
    .string()
    .regex(/^\d{1,9}$/, message)
    .transform(Number)
    .pipe(z.number().min(1, message).max(max, message));
}

function fromJSON(text: string, context: z.RefinementCtx): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message quotes the text.
    context.addIssue({ code: "custom", message: "is not valid JSON" });
    return z.NEVER;
  }
}

function sentence(issue: z.core.$ZodIssue): string {
  const [name, ...rest] = issue.path;
  const place = rest.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`)).join("");
  return `${String(name)}${place} ${issue.message}.`;
}
