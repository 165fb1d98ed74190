/**
 * The names of the variables that configure the Worker; config.ts says what each may hold. Without imports, so that
 * `npm start` can pass them from its environment.
 */
export const VARIABLES = [
  "SERVER_AUTH_TOKEN",
  "AUTH_TOKENS",
  "ALLOWED_ORIGINS",
  "PUBLIC_ORIGIN",
  "PREVIEW_HOST",
  "LINK_KEY",
  "OAUTH_CLIENT_METADATA",
  "GITHUB_CLIENT_ID",
  "GITHUB_CLIENT_SECRET",
  "GITHUB_ALLOWED_USERS",
  "GITHUB_ALLOWED_ORG",
  "GITHUB_URL",
  "GITHUB_API_URL",
  "ACCESS_TEAM_DOMAIN",
  "ACCESS_AUDIENCE",
  "ACCESS_CERTS_URL",
  "LOG_LEVEL",
  "RESULT_TTL_DAYS",
  "RUN_LOG_MAX_MB",
  "ANTHROPIC_API_KEY",
  "CLAUDE_CODE_OAUTH_TOKEN",
  "ANTHROPIC_UPSTREAM_URL",
  "MAX_TASK_TOKENS",
  "TASK_ARCHIVE_MAX_MB",
  "MAX_SANDBOXES",
  "MAX_RUNNING_SANDBOXES",
  "MAX_CONCURRENT_RUNS",
  "MAX_RUN_SECONDS_PER_DAY",
  "MAX_MODEL_TOKENS_PER_DAY",
  "MAX_STORAGE_MB",
  "SANDBOX_TTL_HOURS",
  "MAX_WAIT_SECONDS",
] as const;

/** Read by the Sandbox SDK itself. */
export const SDK_VARIABLES = ["SANDBOX_TRANSPORT", "SANDBOX_LOG_LEVEL"] as const;
