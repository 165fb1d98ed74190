/** The database of a sandbox's Durable Object. The SDK adds its own tables and keys. */
import type { KeyOf, KeyValues, Schema } from "./migrations.ts";

/** If the server destroys an idle sandbox that has a saved workspace, it keeps the settings for the next start. */
const AS_LONG_AS_SETTINGS = "like all settings";

export const SANDBOX_SCHEMA = {
  migrations: [
    {
      name: "the tables of servers without versions",
      sql: `
        CREATE TABLE IF NOT EXISTS runs (
          id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, title TEXT NOT NULL, started_at INTEGER NOT NULL,
          ended_at INTEGER, exit_code INTEGER, note TEXT, detail TEXT, trace TEXT,
          out_bytes INTEGER NOT NULL, out_head BLOB NOT NULL, out_tail BLOB NOT NULL,
          err_bytes INTEGER NOT NULL, err_head BLOB NOT NULL, err_tail BLOB NOT NULL,
          log_bytes INTEGER NOT NULL, dropped_bytes INTEGER NOT NULL) WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS runs_ended ON runs (ended_at);
        CREATE TABLE IF NOT EXISTS run_sources (id TEXT PRIMARY KEY, source TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS log (
          run TEXT NOT NULL, seq INTEGER NOT NULL, stream INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
          object INTEGER, object_start INTEGER, data BLOB, PRIMARY KEY (run, seq)) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS kernels (
          key TEXT PRIMARY KEY, context_id TEXT NOT NULL, language TEXT NOT NULL, pid INTEGER NOT NULL, started INTEGER NOT NULL);
        CREATE TABLE IF NOT EXISTS previews (
          port INTEGER PRIMARY KEY, token TEXT NOT NULL, boot INTEGER NOT NULL, expires_at INTEGER NOT NULL,
          answered INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS task_budgets (
          run TEXT PRIMARY KEY, key_hash TEXT NOT NULL UNIQUE, requests INTEGER NOT NULL, tokens INTEGER NOT NULL,
          max_tokens INTEGER NOT NULL, refused INTEGER NOT NULL, status INTEGER, message TEXT) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS model_calls (
          run TEXT NOT NULL, number INTEGER NOT NULL, began_at INTEGER NOT NULL, PRIMARY KEY (run, number)) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS untold_tokens (day INTEGER PRIMARY KEY, tokens INTEGER NOT NULL);`,
    },
    {
      name: "one row for a run with its source",
      sql: `
        ALTER TABLE runs ADD COLUMN source TEXT;
        UPDATE runs SET source = (SELECT run_sources.source FROM run_sources WHERE run_sources.id = runs.id);
        DROP TABLE run_sources;
        ALTER TABLE runs RENAME COLUMN trace TO resume_state;
        ALTER TABLE untold_tokens RENAME TO unreported_tokens;`,
    },
    {
      name: "the trace of a task",
      sql: `
        ALTER TABLE task_budgets ADD COLUMN traceparent TEXT;
        ALTER TABLE task_budgets ADD COLUMN tracestate TEXT;`,
    },
    {
      // Most of the cost of a short call is the write of its run's row. An index of all runs would need a second write.
      name: "indexes of only the unended and the large runs",
      sql: `
        DROP INDEX runs_ended;
        CREATE INDEX runs_unended ON runs (id) WHERE ended_at IS NULL;
        CREATE INDEX runs_large ON runs (id) WHERE log_bytes > 65536 OR kind = 'task';`,
    },
  ],
  tables: {
    runs: {
      holds:
        "one run: state, title, times, exit code, note, detail, up to 16,384 characters of its source, the first and last 16 KiB of each stream, and what an actor needs to continue the run",
      kept: "`RESULT_TTL_DAYS` after its end",
    },
    log: {
      holds: "a piece of a run's log: stream, offset, and its data (at most 512 KiB) or its place in R2",
      kept: "with its run",
    },
    kernels: { holds: "a running kernel: context, language, process", kept: "until its container ends" },
    previews: {
      holds:
        "a port that can be reached from outside: its token, its expiry, the number of the container, and whether a program has responded there",
      kept: "until the port is closed or the sandbox is destroyed. An expired preview stays until another port is exposed",
    },
    task_budgets: {
      holds:
        "the hash of the placeholder with which a task calls the model, the task's requests and tokens, and its trace",
      kept: "until its task has ended",
    },
    unreported_tokens: {
      holds: "model tokens that were not yet reported to the account, by day",
      kept: "until they are reported",
    },
    model_calls: {
      holds: "a pending request of a task to the model",
      kept: "until the request or the task has ended",
    },
  },
  keys: {
    owner: { holds: "principal, sandbox name, hash of the principal", kept: "for good" },
    setup: {
      holds: "the set-up script, its last outcome, and the hash under which the account keeps that outcome",
      kept: AS_LONG_AS_SETTINGS,
    },
    variables: {
      holds:
        "the sandbox's variables, and the names of the last 200 removed ones, which sessions and kernels may still have",
      kept: AS_LONG_AS_SETTINGS,
    },
    network: {
      holds: "the chosen `internet` and `allow_hosts`",
      kept: AS_LONG_AS_SETTINGS,
    },
    intercepted: {
      holds:
        "the hosts whose requests from the running container the server intercepts, because they have a secret or a git sign-in",
      kept: "until the next container starts",
    },
    restricted: {
      holds:
        "for a sandbox on Cloudflare that once had a restricted network: whether its container started with unrestricted access",
      kept: "for good",
    },
    "decisions:*": {
      holds: "the hosts that a person is asked to allow, or has refused",
      kept: "15 minutes; at most 20 questions",
    },
    connections: {
      holds:
        "the last 1,000 connections (about 130 KB), stored within five seconds after a run has ended or the Worker has forwarded a request",
      kept: "until the sandbox is destroyed",
    },
    "workspace:*": {
      holds:
        "the saved state that the container's files come from; a save that the account has not confirmed; a checkpoint that is being restored",
      kept: "until its container ends",
    },
    "boots:*": {
      holds:
        "how many containers were started, why the container is being stopped, and the notice for the next answer",
      kept: "until the sandbox is destroyed",
    },
    "file-links:*": {
      holds:
        "links to files and run outputs; an id of the container, which links to files need; used upload links",
      kept: "links until they have expired and new links are made; the rest until the container ends",
    },
    "sandboxd:token": {
      holds: "the token for requests to sandboxd, given to the container when it starts",
      kept: "for good",
    },
    told: {
      holds: "the time up to which the seconds of runs have been reported to the account",
      kept: "for good",
    },
    used: {
      holds:
        "when the sandbox was last used, to the minute: the idle time must not begin again when the platform restarts the actor",
      kept: "for good",
    },
    service: {
      holds:
        "the script of `start` (empty after its removal), the ids of its last three runs, whether the newest run has an earlier script, and whether the service was cancelled in this container",
      kept: AS_LONG_AS_SETTINGS,
    },
    idle_minutes: {
      holds: "the idle minutes from `configure_sandbox`, after which the container is stopped",
      kept: AS_LONG_AS_SETTINGS,
    },
    sweep: { holds: "when expired runs will be removed next", kept: "until then" },
  },
} satisfies Schema;

export type SandboxKey = KeyOf<typeof SANDBOX_SCHEMA>;

export type SandboxKV = KeyValues<SandboxKey>;
