/** The Worker's bindings and variables, and their parsed form. */
import * as z from "zod";
import { fromEnv } from "./env-fields.ts";
import { MODEL_HOST, type Secret, SERVER, secretsOfHost, secretsFor } from "./secrets.ts";
import type { DURABLE_OBJECTS, SandboxClass } from "./names.ts";
import { PRINCIPAL_IDS } from "./principal.ts";
import { previousTokenOf, type StaticToken } from "./static-tokens.ts";
import { TOOL_NAMES, chooseTools } from "./tool-sets.ts";
import { type Values, type Variable, type VariableName, VARIABLES, variables } from "./variables.ts";

const MIB = 1024 * 1024;

export const MAX_WAIT_SECONDS = variables.MAX_WAIT_SECONDS.default;

/** An R2 bucket or its stand-in. Its methods have no types, so that only `objectStore` can call them. */
type BucketBinding = Record<"put" | "get" | "delete" | "list", unknown>;

/** Untyped, because this folder imports no actors. */
type Namespaces = Record<(typeof DURABLE_OBJECTS)[number], DurableObjectNamespace>;

export type SandboxNamespaces = Pick<Namespaces, SandboxClass>;

/** `parseConfig` parses the variables. */
export interface Env extends Omit<Namespaces, "Attempts">, Partial<Record<VariableName, string>> {
  /** Counts wrong owner tokens and unapproved clients, and stores a key for links. Without it, the owner cannot sign in by token. */
  Attempts?: DurableObjectNamespace;
  /** Stores OAuth clients, grants and tokens. Without it OAuth is off. */
  OAUTH_KV?: KVNamespace;
  /** The local platform's folder of task definitions. It takes precedence over `COMPONENTS`. */
  COMPONENTS_FOLDER?: Fetcher;
  /** Stores logs and artifacts of runs, saved workspaces, and definitions. Use it through `objectStore`. */
  RESULTS: BucketBinding;
  /** Limits the calls of a principal. Without it there is no limit. */
  RATE_LIMITER?: RateLimit;
  /** Limits OAuth requests that cause writes, for each client address. Without it, a limiter in this process limits them. */
  ADDRESS_LIMITER?: RateLimit;
}

export function canRunTasks({ secrets }: Pick<Config, "secrets">): boolean {
  return secretsOfHost(secretsFor(secrets, SERVER), MODEL_HOST).length > 0;
}

export type Config = Readonly<ReturnType<typeof configOf>>;

export type Limits = Config["limits"];

/** The owner's accepted tokens, newest first. The previous token is accepted only if a newer token is set. */
export function ownerTokens(config: Pick<Config, "serverAuthToken" | "previousToken">): readonly string[] {
  const { serverAuthToken, previousToken } = config;
  if (serverAuthToken === undefined) return [];
  const isAccepted = previousToken !== undefined && Date.now() < previousToken.until;
  return isAccepted ? [serverAuthToken, previousToken.value] : [serverAuthToken];
}

/** The configuration is invalid. Each problem is a sentence that names a variable, never its value. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join(" "));
    this.problems = problems;
  }
}

const parsed = new WeakMap<object, Config | ConfigError>();

/** The configuration of `env`, parsed once per object. @throws {ConfigError} naming every wrong variable */
export function parseConfig(env: Env): Config {
  const known = parsed.get(env) ?? parse(env);
  parsed.set(env, known);
  if (known instanceof ConfigError) throw known;
  return known;
}

const valuesSchema = z.object(
  Object.fromEntries(
    VARIABLES.filter(([, { reader }]) => reader !== "sdk").map(([name, row]) => [
      name,
      fromEnv(row.schema, row.default),
    ]),
  ),
);

function parse(env: Env): Config | ConfigError {
  const result = valuesSchema.safeParse(env);
  if (!result.success) return new ConfigError(result.error.issues.map(sentenceOf));
  const values = result.data as Values;
  const problems = VARIABLES.flatMap(([name]) => missingVariables(name, values));
  problems.push(...wrongPrincipals(values));
  if (coversServer(values.PREVIEW_HOST, values.PUBLIC_ORIGIN))
    problems.push("PREVIEW_HOST must not be the host of PUBLIC_ORIGIN, nor a parent domain of that host.");
  return problems.length > 0 ? new ConfigError(problems) : configOf(values);
}

/** Errors for variables that must be set together with `name`, but are not. An empty list counts as not set. */
function missingVariables(name: VariableName, values: Values): string[] {
  const isSet = (other: string) =>
    ![undefined, ""].includes((values as Record<string, unknown>)[other]?.toString());
  const { needs = [] }: Variable = variables[name];
  return needs
    .filter(({ oneOf }) => isSet(name) && !oneOf.some(isSet))
    .map(({ oneOf, why = " to be set too" }) => `${name} needs ${oneOf.join(" or ")}${why}.`);
}

function wrongPrincipals({ SECRETS: secrets }: Values): string[] {
  const kinds = Object.values(PRINCIPAL_IDS);
  const forms = new Intl.ListFormat("en-GB", { type: "disjunction" }).format(kinds.map(({ form }) => form));
  return secrets.flatMap(({ principals = [] }, secret) =>
    principals.flatMap((id, at) =>
      kinds.some(({ pattern }) => pattern.test(id))
        ? []
        : `SECRETS[${secret}].principals[${at}] must be ${forms}.`,
    ),
  );
}

/** The values, with the names and units that the code uses. The table of variables documents them. */
function configOf(values: Values) {
  const metadata = values.OAUTH_CLIENT_METADATA;
  const authTokens: readonly StaticToken[] = values.AUTH_TOKENS ?? [];
  return {
    values,
    serverAuthToken: values.SERVER_AUTH_TOKEN,
    previousToken: previousTokenOf(
      values.SERVER_AUTH_TOKEN_PREVIOUS,
      values.SERVER_AUTH_TOKEN_PREVIOUS_UNTIL,
    ),
    authTokens,
    allowedOrigins: new Set(values.ALLOWED_ORIGINS),
    publicOrigin: values.PUBLIC_ORIGIN,
    previewHost: values.PREVIEW_HOST,
    linkKey: values.LINK_KEY,
    /** If undefined, the server's address decides. */
    clientMetadata: metadata && metadata === "on",
    logLevel: values.LOG_LEVEL,
    resultTTLDays: values.RESULT_TTL_DAYS,
    runLogMaxMiB: values.RUN_LOG_MAX_MB,
    limits: {
      sandboxes: values.MAX_SANDBOXES,
      runningSandboxes: values.MAX_RUNNING_SANDBOXES,
      concurrentRuns: values.MAX_CONCURRENT_RUNS,
      runSecondsPerDay: values.MAX_RUN_SECONDS_PER_DAY,
      modelTokensPerDay: values.MAX_MODEL_TOKENS_PER_DAY,
      storageBytes: values.MAX_STORAGE_MB * MIB,
      workspaceBytes: values.MAX_WORKSPACES_MB * MIB,
      checkpoints: values.MAX_CHECKPOINTS,
    },
    idle: {
      minutes: values.IDLE_STOP_MINUTES,
      maxMinutes: values.MAX_IDLE_MINUTES ?? values.IDLE_STOP_MINUTES,
      busyHours: values.KEEP_BUSY ?? 0,
    },
    sandboxTTLHours: values.SANDBOX_TTL_HOURS,
    defaultRegion: values.DEFAULT_REGION,
    network: { initial: values.DEFAULT_INTERNET, max: values.MAX_INTERNET, allowHosts: values.ALLOW_HOSTS },
    secrets: [
      ...modelSecrets(values.ANTHROPIC_API_KEY, values.CLAUDE_CODE_OAUTH_TOKEN),
      ...values.SECRETS,
    ] as readonly Secret[],
    gitSignIn: values.GIT_SIGN_IN === "on",
    maxWaitSeconds: values.MAX_WAIT_SECONDS,
    tools: values.TOOLS ? chooseTools(values.TOOLS, TOOL_NAMES) : TOOL_NAMES,
    tasks: {
      anthropicURL: values.ANTHROPIC_UPSTREAM_URL,
      questionModel: values.QUESTION_MODEL,
      maxTokens: values.MAX_TASK_TOKENS,
      archiveMaxMiB: values.TASK_ARCHIVE_MAX_MB,
      componentsPrefix: values.COMPONENTS,
    },
    workspaces: {
      isSaved: values.WORKSPACE_SAVE === "on",
      maxBytes: values.WORKSPACE_MAX_MB * MIB,
      ttlDays: values.CHECKPOINT_TTL_DAYS,
    },
    mounts: values.MOUNTED_DIRECTORIES,
    localTokenCommand: values.LOCAL_TOKEN_COMMAND,
    openFiles: values.LOCAL_OPEN_FILES,
  };
}

function modelSecrets(key: string | undefined, token: string | undefined): Secret[] {
  const value = key ?? token;
  if (value === undefined) return [];
  const place =
    key === undefined
      ? ({ in: "header", name: "authorization", template: "Bearer {value}" } as const)
      : ({ in: "header", name: "x-api-key", template: "{value}" } as const);
  return [{ name: "model", hosts: [MODEL_HOST], place, value, principals: [SERVER], variable: undefined }];
}

/** Whether the server's own host would count as a preview, or would share its cookies with all previews. */
function coversServer(previewHost: string | undefined, publicOrigin: string | undefined): boolean {
  if (previewHost === undefined || publicOrigin === undefined) return false;
  const { hostname } = new URL(`https://${previewHost}`);
  return `.${new URL(publicOrigin).hostname}`.endsWith(`.${hostname}`);
}

function sentenceOf(issue: z.core.$ZodIssue): string {
  const [name, ...rest] = issue.path;
  const place = rest.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`)).join("");
  return `${String(name)}${place} ${issue.message}.`;
}
