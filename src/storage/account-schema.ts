/** The database of a principal's Durable Object. */
import type { Content, Migration } from "./migrations.ts";

export const ACCOUNT_MIGRATIONS: readonly Migration[] = [
  {
    name: "the tables of version 1",
    // Settings of checkpoints have rowids, because SQLite compares rows without them with all their data, and settings have up to 1.6 MB.
    sql: `
        CREATE TABLE sandboxes (
          name TEXT PRIMARY KEY, state TEXT NOT NULL, created_at INTEGER NOT NULL, last_used_at INTEGER NOT NULL,
          size_bytes INTEGER) WITHOUT ROWID;
        CREATE TABLE settings (sandbox TEXT PRIMARY KEY, variables TEXT NOT NULL, network TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE storage (sandbox TEXT PRIMARY KEY, bytes INTEGER NOT NULL, oldest INTEGER) WITHOUT ROWID;
        CREATE INDEX storage_oldest ON storage (oldest);
        CREATE TABLE leases (
          sandbox TEXT PRIMARY KEY, slots INTEGER NOT NULL, seconds INTEGER NOT NULL, until INTEGER NOT NULL,
          turn INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE usage (
          day INTEGER PRIMARY KEY, run_seconds INTEGER NOT NULL DEFAULT 0, model_tokens INTEGER NOT NULL DEFAULT 0);
        CREATE TABLE tasks (
          id TEXT PRIMARY KEY, state TEXT NOT NULL, title TEXT NOT NULL, started_at INTEGER NOT NULL, ended_at INTEGER) WITHOUT ROWID;
        CREATE INDEX tasks_started ON tasks (started_at, id);
        CREATE TABLE snapshots (
          id TEXT PRIMARY KEY, saved_at INTEGER NOT NULL, files INTEGER NOT NULL, bytes INTEGER NOT NULL,
          manifest_bytes INTEGER NOT NULL, left_out TEXT) WITHOUT ROWID;
        CREATE TABLE packs (id TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE pack_refs (
          snapshot TEXT NOT NULL, pack TEXT NOT NULL, live INTEGER NOT NULL, PRIMARY KEY (snapshot, pack)) WITHOUT ROWID;
        CREATE INDEX pack_refs_pack ON pack_refs (pack);
        CREATE TABLE workspaces (
          sandbox TEXT PRIMARY KEY, snapshot TEXT NOT NULL, created_at INTEGER NOT NULL, used_at INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE checkpoints (
          id TEXT PRIMARY KEY, sandbox TEXT NOT NULL, snapshot TEXT NOT NULL, label TEXT NOT NULL, automatic INTEGER NOT NULL,
          created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL);
        CREATE TABLE checkpoint_settings (checkpoint TEXT PRIMARY KEY, settings TEXT NOT NULL);
        CREATE TABLE archives (
          run TEXT NOT NULL, part TEXT NOT NULL, snapshot TEXT NOT NULL, expires_at INTEGER NOT NULL,
          PRIMARY KEY (run, part)) WITHOUT ROWID;
        CREATE INDEX archives_snapshot ON archives (snapshot);
        CREATE TABLE saves (sandbox TEXT PRIMARY KEY, id TEXT NOT NULL, begun_at INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE garbage (prefix TEXT PRIMARY KEY, due_at INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE git_hosts (
          host TEXT PRIMARY KEY, user_name TEXT NOT NULL, token TEXT NOT NULL, signed_in_at INTEGER NOT NULL) WITHOUT ROWID;`,
  },
];

/** Only the type is used in the Worker, so its bundle does not contain this. */
export const ACCOUNT_CONTENT = {
  tables: {
    sandboxes: {
      holds: "a sandbox: its state, its disk use, when it was created and when it was last used",
      kept: "until it is destroyed, at most `SANDBOX_TTL_HOURS` after its last use",
    },
    settings: {
      holds: "for a configured sandbox: the names of its variables, and its network access",
      kept: "with the settings",
    },
    leases: {
      holds:
        "the lease of a sandbox, its share of the quota: how many concurrent runs and how much run time the sandbox may use",
      kept: "five minutes. The sandbox renews it while runs continue",
    },
    usage: {
      holds: "the use on one day (UTC): the run time in seconds, and the model tokens of tasks",
      kept: "seven days",
    },
    storage: {
      holds:
        "[how many bytes](#what-counts-as-storage) the runs of a sandbox have stored, and when the first of these runs ended",
      kept: "while something is stored or may be, within `MAX_STORAGE_MB`",
    },
    workspaces: {
      holds:
        "the current saved state of a sandbox, when its first state was saved, and when the sandbox was last used",
      kept: "until its user destroys the sandbox, at most `CHECKPOINT_TTL_DAYS` after its last use and the end of its last container",
    },
    checkpoints: {
      holds: "a checkpoint: its sandbox, its label, its saved state, and whether `restore_sandbox` made it",
      kept: "`CHECKPOINT_TTL_DAYS`, or until it is deleted. Of those that `restore_sandbox` made, each sandbox keeps the newest ten, and each principal the newest `MAX_CHECKPOINTS`",
    },
    checkpoint_settings: {
      holds:
        "the settings of the sandbox at the time of a checkpoint or at the end of a task, with the values of variables and the set-up script",
      kept: "with the checkpoint, or with the task's archive",
    },
    archives: {
      holds: "a saved state from a task (its workspace or its agent's conversation) or from a set-up",
      kept: "from a task: with the task's record, at most those of the newest 2,000 tasks. From a set-up: `CHECKPOINT_TTL_DAYS`, at most the newest 100",
    },
    snapshots: { holds: "saved states", kept: "while a sandbox, a checkpoint or an archive refers to them" },
    packs: { holds: "packs with the content of saved states", kept: "while a saved state refers to them" },
    pack_refs: { holds: "which saved state refers to which pack", kept: "with the saved state" },
    saves: { holds: "a save in progress", kept: "until it is complete or abandoned, at most an hour" },
    garbage: {
      holds: "the prefixes of objects in R2 that are not needed any more",
      kept: "until R2 has deleted them",
    },
    git_hosts: {
      holds: "a git host that the person has signed in to: user name, access token, time of the sign-in",
      kept: "until the person removes it at `/panel/git`; at most the newest 20",
    },
    tasks: { holds: "a task: id, state, title, times", kept: "`RESULT_TTL_DAYS`" },
  },
  keys: { principal: { holds: "the principal's id", kept: "forever" } },
} satisfies Content;
