/** The database of a sandbox's Durable Object. The SDK adds its own tables and keys. */
import type { Content, KeyOf, KeyValues, Migration } from "./migrations.ts";

/** If the server destroys an idle sandbox that has a saved workspace, it keeps the settings for the next start. */
const AS_LONG_AS_SETTINGS = "with the settings";

export const SANDBOX_MIGRATIONS: readonly Migration[] = [
  {
    name: "the tables of version 1",
    // Most of the cost of a short call is the write of its run's row, so only unended runs have an index. Large details have a table
    // with rowids, so that a search for a run passes only their ids.
    sql: `
        CREATE TABLE runs (
          id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, title TEXT NOT NULL, started_at INTEGER NOT NULL,
          ended_at INTEGER, exit_code INTEGER, note TEXT, detail TEXT, resume_state TEXT,
          out_bytes INTEGER NOT NULL, out_head BLOB NOT NULL, out_tail BLOB NOT NULL,
          err_bytes INTEGER NOT NULL, err_head BLOB NOT NULL, err_tail BLOB NOT NULL,
          log_bytes INTEGER NOT NULL, dropped_bytes INTEGER NOT NULL, source TEXT) WITHOUT ROWID;
        CREATE INDEX runs_unended ON runs (id) WHERE ended_at IS NULL;
        CREATE TABLE run_details (run TEXT PRIMARY KEY, detail TEXT NOT NULL);
        CREATE TABLE stored_bytes (run TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE log (
          run TEXT NOT NULL, seq INTEGER NOT NULL, stream INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
          object INTEGER, object_start INTEGER, data BLOB, PRIMARY KEY (run, seq)) WITHOUT ROWID;
        CREATE TABLE kernels (
          key TEXT PRIMARY KEY, context_id TEXT NOT NULL, language TEXT NOT NULL, pid INTEGER NOT NULL, started INTEGER NOT NULL);
        CREATE TABLE previews (
          port INTEGER PRIMARY KEY, token TEXT NOT NULL, boot INTEGER NOT NULL, expires_at INTEGER NOT NULL,
          answered INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
        CREATE TABLE task_budgets (
          run TEXT PRIMARY KEY, key_hash TEXT NOT NULL UNIQUE, requests INTEGER NOT NULL, tokens INTEGER NOT NULL,
          max_tokens INTEGER NOT NULL, refused INTEGER NOT NULL, status INTEGER, message TEXT, traceparent TEXT,
          tracestate TEXT) WITHOUT ROWID;
        CREATE TABLE model_calls (
          run TEXT NOT NULL, number INTEGER NOT NULL, began_at INTEGER NOT NULL, PRIMARY KEY (run, number)) WITHOUT ROWID;
        CREATE TABLE unreported_tokens (day INTEGER PRIMARY KEY, tokens INTEGER NOT NULL);`,
  },
];

/** Only the type is used in the Worker, so its bundle does not contain this. */
export const SANDBOX_CONTENT = {
  tables: {
    runs: {
      holds:
        "one run: its state, title, times, exit code and note; up to 16,384 characters of its source; the first and last 16 KiB of each output stream; and the data with which a new actor resumes it",
      kept: "`RESULT_TTL_DAYS` after its end",
    },
    run_details: {
      holds: "the results of a run that have more than 16,384 characters, for example images",
      kept: "with its run",
    },
    log: {
      holds:
        "a piece of a run's log: its stream, its offset, and its bytes (at most 512 KiB) or its place in R2",
      kept: "with its run",
    },
    stored_bytes: { holds: "how many bytes a run stores in R2", kept: "with its run" },
    kernels: { holds: "a running kernel: context, language, process", kept: "until its container ends" },
    previews: {
      holds:
        "an exposed port: the token in its URL, when it expires, the number of the container, and whether a program has responded there",
      kept: "until the port is closed or the sandbox is destroyed. An expired preview stays until another port is exposed",
    },
    task_budgets: {
      holds:
        "for a running task: the hash of the placeholder that its agent sends to the model as the key, its requests and tokens so far, and its trace id",
      kept: "until its task has ended",
    },
    unreported_tokens: {
      holds: "for each day, the model tokens that were not yet reported to the account",
      kept: "until they are reported",
    },
    model_calls: {
      holds: "a request of a task to the model that has no response yet",
      kept: "until the request or the task has ended",
    },
  },
  keys: {
    owner: { holds: "principal, sandbox name, region of the actor, hash of the principal", kept: "forever" },
    setup: {
      holds: "the set-up script, its last result, and the key under which the account keeps that result",
      kept: AS_LONG_AS_SETTINGS,
    },
    variables: {
      holds:
        "the sandbox's variables, and the names of the last 200 removed ones, which sessions may still have",
      kept: AS_LONG_AS_SETTINGS,
    },
    network: {
      holds: "the values of `internet` and `allow_hosts` from `configure_sandbox`",
      kept: AS_LONG_AS_SETTINGS,
    },
    intercepted: {
      holds: "hosts with a secret or a git sign-in, for which the server intercepts requests",
      kept: "until the next container starts",
    },
    restricted: {
      holds:
        "for a sandbox whose network was restricted at some time: whether its container started with unrestricted access (only on Cloudflare)",
      kept: "forever",
    },
    "decisions:*": {
      holds: "hosts that a person is asked to allow, or has refused",
      kept: "15 minutes; at most 20 questions",
    },
    connections: {
      holds: "the last 1,000 connections to other hosts (about 130 KB)",
      kept: "until the sandbox is destroyed",
    },
    "workspace:*": {
      holds:
        "the saved state from which the container's files come; a save that the account has not confirmed; a checkpoint that is being restored, and the settings for the checkpoint of the state before it; whether the container must not be used any more",
      kept: "the saved state until the container ends; the save and the checkpoint until the server knows how they ended; the last until the next container starts",
    },
    "restart:*": {
      holds:
        "the number of the last container, why the current one is being stopped, and the notices for the next result",
      kept: "until the sandbox is destroyed; if it is removed because it is unused, notices of losses until a result shows them",
    },
    "file-links:*": {
      holds: "links to files and to outputs of runs; an id of the container for which the links are valid",
      kept: "links until they have expired and another link is made; the rest until the container ends",
    },
    "sandboxd:token": {
      holds: "the token for requests to sandboxd",
      kept: "forever",
    },
    settled_at: {
      holds: "when the sandbox last reported its run time to the account",
      kept: "forever",
    },
    ended_task: {
      holds:
        "the ended task whose sandbox is being destroyed: its id, state, title and times, and whether a saved sandbox stays",
      kept: "until the sandbox is destroyed or used again",
    },
    used_at: {
      holds: "when the sandbox was last used, to the minute",
      kept: "forever",
    },
    service: {
      holds:
        "the script of the service (empty after its removal), the ids of its last three runs, whether the newest run still executes the previous script, and whether the service was cancelled",
      kept: AS_LONG_AS_SETTINGS,
    },
    idle_minutes: {
      holds: "the idle time from `configure_sandbox`, in minutes",
      kept: AS_LONG_AS_SETTINGS,
    },
  },
} satisfies Content;

export type SandboxKey = KeyOf<typeof SANDBOX_CONTENT>;

export type SandboxKV = KeyValues<SandboxKey>;
