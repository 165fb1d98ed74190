/**
 * The saved states of a principal's sandboxes, kept by their `Account`.
 *
 * A snapshot is one state of a workspace: a manifest, and the packs that hold its content. It lives as long as a sandbox has
 * it as its current state, a checkpoint names it, or it is the archive of a task or a set-up; a pack lives as long as a
 * snapshot refers to it. Archives give way where there is no room: those of the tasks that ended first.
 *
 * Every step is one transaction. What nothing refers to any more becomes garbage in the same transaction, as prefixes of keys
 * in R2, and its row stays until R2 has deleted it, so that neither a crash nor a refusal of R2 leaves anything behind.
 */
import type { NamedFiles } from "../../container/sandboxd/snapshots/calls.ts";
import type { Limits } from "../shared/config.ts";
import { DAY_MS } from "../shared/days.ts";
import { type ToolError } from "../shared/errors.ts";
import { randomLetters } from "../shared/names.ts";
import {
  noCheckpoint,
  nothingToKeep,
  otherSandboxesCheckpoint,
  quotaError,
  taskFilesNotKept,
} from "./texts.ts";

/** Content that one save has added. Its id is that of the save. */
export interface Pack {
  id: string;
  /** All of it, and what of it the snapshot still refers to. */
  bytes: number;
  live: number;
}

/** What a save left out. */
export interface LeftOut {
  /** Of the files for which there was no room. */
  count: number;
  bytes: number;
  /** Where most of it is. */
  names: string[];
  /** What could not be read, and sockets, pipes and devices. */
  unreadable?: NamedFiles;
  special?: NamedFiles;
  /** Directories that can be made again, with more files than a snapshot holds. */
  crowded?: NamedFiles;
}

export interface Snapshot {
  id: string;
  /** When it was saved, milliseconds since the epoch. */
  savedAt: number;
  files: number;
  /** Of its files. */
  bytes: number;
  manifestBytes: number;
  left?: LeftOut;
  packs: Pack[];
}

/** A save that is to become the current state of its sandbox. */
export interface Save extends Omit<Snapshot, "savedAt"> {
  sandbox: string;
  /** The snapshot that was its current state when the save began. */
  base: string | undefined;
  /** It becomes this instead, and the sandbox keeps its state. */
  archive?: Archive;
}

/** A part of what a task or a set-up left. */
export interface Archive {
  /** The whole id of the task's run, or the key of the set-up. */
  run: string;
  part: "workspace" | "conversation";
  /** When it ends, milliseconds since the epoch. */
  expiresAt: number;
  /** What its sandbox was set to, as JSON, for one that goes on with it. */
  settings?: string | undefined;
}

export interface Checkpoint {
  id: string;
  /** Whose state it was. */
  sandbox: string;
  label: string;
  /** When the state was saved, milliseconds since the epoch, and how much it holds. */
  savedAt: number;
  files: number;
  bytes: number;
  /** When it ends, milliseconds since the epoch. */
  expiresAt: number;
}

/** The current state of a sandbox, as it is listed. Times are milliseconds since the epoch. */
export interface SavedWorkspace {
  sandbox: string;
  createdAt: number;
  usedAt: number;
  savedAt: number;
  files: number;
  bytes: number;
}

/** The part of a Durable Object's storage that this needs. */
type Storage = Pick<DurableObjectStorage, "sql" | "transactionSync">;

/** How long a save may take, and objects that a broken one may still be writing are left alone, milliseconds. */
const WRITING_MS = 3_600_000;

/** How long after R2 refused to delete something it is asked again, milliseconds. */
const DELETE_RETRY_MS = 300_000;

/** Checkpoints that going back has made of one sandbox: the newest are kept. */
const KEPT_BEFORE = 10;

/** Outcomes of set-ups: the newest are kept. */
const KEPT_SETUPS = 100;

/** Prefixes that are deleted in one go. */
const BATCH = 20;

export class SnapshotRegistry {
  readonly #storage: Storage;
  readonly #limits: Pick<Limits, "checkpoints" | "workspaceBytes">;
  readonly #keepMs: number;

  /** @param ttlDays how long a checkpoint lives, and a state after the last use of its sandbox */
  constructor(storage: Storage, limits: Pick<Limits, "checkpoints" | "workspaceBytes">, ttlDays: number) {
    this.#storage = storage;
    this.#limits = limits;
    this.#keepMs = ttlDays * DAY_MS;
  }

  /** The state that a sandbox starts from. */
  current(sandbox: string): Snapshot | undefined {
    const [row] = this.#rows<SnapshotRow>(
      "SELECT s.* FROM workspaces w JOIN snapshots s ON s.id = w.snapshot WHERE w.sandbox = ?",
      sandbox,
    );
    return row && { ...snapshotOf(row), packs: this.#packs(row.id) };
  }

  #packs(snapshot: string): Pack[] {
    return this.#rows<{ id: string; bytes: number; live: number }>(
      "SELECT p.id, p.bytes, r.live FROM pack_refs r JOIN packs p ON p.id = r.pack WHERE r.snapshot = ? ORDER BY p.id",
      snapshot,
    );
  }

  /** The state that a sandbox starts from, where that is the archive of a task. */
  currentArchive(sandbox: string): Snapshot | undefined {
    const snapshot = this.current(sandbox);
    return snapshot && this.#isArchive(snapshot.id) ? snapshot : undefined;
  }

  #isArchive(snapshot: string): boolean {
    return this.#rows("SELECT run FROM archives WHERE snapshot = ? LIMIT 1", snapshot).length > 0;
  }

  /** A part of what a task or a set-up left. */
  archived(run: string, part: Archive["part"]): Snapshot | undefined {
    const [row] = this.#rows<SnapshotRow>(
      "SELECT s.* FROM archives a JOIN snapshots s ON s.id = a.snapshot WHERE a.run = ? AND a.part = ?",
      run,
      part,
    );
    return row && { ...snapshotOf(row), packs: this.#packs(row.id) };
  }

  /**
   * A save begins to write objects. One that the sandbox had begun before is given up. Answers how many bytes it may add.
   * @param isArchive whether it becomes the archive of a task
   * @param notEnough how many bytes were too few for it before
   * @throws {ToolError} where it may add no more than those
   * @throws where it is to follow `base`, and its sandbox has another current state by now
   */
  begin(
    sandbox: string,
    id: string,
    base: string | undefined,
    isArchive = false,
    now = Date.now(),
    notEnough = -1,
  ): number {
    return this.#storage.transactionSync(() => {
      if (!isArchive) this.#requireBase(sandbox, base);
      // What only the state before holds goes with it.
      const room = this.#limits.workspaceBytes - this.#lastingBytes(isArchive ? undefined : sandbox);
      if (Math.max(0, room) <= notEnough) throw this.full();
      const [before] = this.#rows<{ id: string }>("SELECT id FROM saves WHERE sandbox = ?", sandbox);
      if (before) this.#discard(before.id, now + WRITING_MS);
      this.#sql("INSERT OR REPLACE INTO saves VALUES (?, ?, ?)", sandbox, id, now);
      return Math.max(0, room);
    });
  }

  /**
   * Makes a save the current state of its sandbox, or the archive of a task. One that is that already stays so.
   * @param packBytes bytes that it has written as its own pack
   * @throws {ToolError} where it was given up, has another base, refers to packs that neither that nor the save has, or
   *   takes more than the principal's limit
   */
  commit(save: Save, packBytes: number, now = Date.now()): void {
    this.#storage.transactionSync(() => {
      const { sandbox, id, base, archive } = save;
      if (this.#currentID(sandbox) === id || this.#isArchive(id)) return;
      if (!archive) this.#requireBase(sandbox, base);
      if (this.#sql("DELETE FROM saves WHERE sandbox = ? AND id = ?", sandbox, id).rowsWritten === 0)
        throw new Error(`save ${id} was given up`);
      const before = this.bytes;
      const known = new Map(this.#packs(base ?? "").map((pack) => [pack.id, pack.bytes]));
      if (packBytes > 0) {
        known.set(id, packBytes);
        this.#sql("INSERT INTO packs VALUES (?, ?)", id, packBytes);
      }
      this.#sql(
        "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?)",
        id,
        now,
        save.files,
        save.bytes,
        save.manifestBytes,
        save.left ? JSON.stringify(save.left) : null,
      );
      for (const pack of save.packs) {
        const bytes = known.get(pack.id);
        if (bytes === undefined) throw new Error(`save ${id} refers to a pack that it has not: ${pack.id}`);
        this.#sql("INSERT INTO pack_refs VALUES (?, ?, ?)", id, pack.id, Math.min(pack.live, bytes));
      }
      if (archive) this.#keepArchive(archive, id);
      else this.#setCurrent(sandbox, id, now);
      this.#collect(now);
      this.#makeRoom(archive?.run, now);
      if (this.bytes > this.#limits.workspaceBytes && this.bytes > before) throw this.full();
    });
  }

  /** Makes a state that there is the archive of a task. @throws Error where it has gone */
  archive(snapshot: string, archive: Archive, now = Date.now()): void {
    this.#storage.transactionSync(() => {
      if (this.#rows("SELECT id FROM snapshots WHERE id = ?", snapshot).length === 0)
        throw new Error(`there is no state ${snapshot} any more`);
      this.#keepArchive(archive, snapshot);
      this.#collect(now);
    });
  }

  #keepArchive({ run, part, expiresAt, settings }: Archive, snapshot: string): void {
    this.#sql("INSERT OR REPLACE INTO archives VALUES (?, ?, ?, ?)", run, part, snapshot, expiresAt);
    if (settings !== undefined) this.keepSettings(run, settings);
    if (run.startsWith("setup:"))
      this.#sql(
        `DELETE FROM archives WHERE run IN (SELECT run FROM archives WHERE run LIKE 'setup:%' AND run <> ?
         ORDER BY expires_at DESC, run LIMIT -1 OFFSET ?)`,
        run,
        KEPT_SETUPS - 1,
      );
  }

  /** Ends archives, those of the tasks that ended first before the others, as long as too much is kept and that helps. */
  #makeRoom(except: string | undefined, now: number): void {
    const { workspaceBytes } = this.#limits;
    if (this.#lastingBytes() > workspaceBytes) return;
    const runs = this.#rows<{ run: string }>(
      "SELECT run FROM archives WHERE run IS NOT ? GROUP BY run ORDER BY min(expires_at), run",
      except ?? null,
    );
    for (const { run } of runs) {
      if (this.bytes <= workspaceBytes) return;
      this.#removeArchive(run, now);
    }
  }

  /** The record of a task has gone, and what is kept of it goes too. */
  removeArchive(run: string, now = Date.now()): void {
    this.#storage.transactionSync(() => this.#removeArchive(run, now));
  }

  #removeArchive(run: string, now: number): void {
    this.#sql("DELETE FROM archives WHERE run = ?", run);
    this.#collect(now);
  }

  /** Makes what a task left the state of a sandbox that has none. @throws {ToolError} `not_found` */
  forkArchive(sandbox: string, run: string, now = Date.now()): void {
    this.#storage.transactionSync(() => this.#setCurrent(sandbox, this.knownArchive(run).id, now));
  }

  /** The workspace that a task left. @throws {ToolError} `not_found` */
  knownArchive(run: string): Snapshot {
    const archive = this.archived(run, "workspace");
    if (archive) return archive;
    throw taskFilesNotKept(run);
  }

  /** A save that was begun comes to nothing. @param isWriting whether objects of it may still be on their way */
  abandonSave(sandbox: string, id: string, isWriting: boolean, now = Date.now()): void {
    this.#storage.transactionSync(() => {
      const { rowsWritten } = this.#sql("DELETE FROM saves WHERE sandbox = ? AND id = ?", sandbox, id);
      if (rowsWritten > 0) this.#discard(id, isWriting ? now + WRITING_MS : now);
    });
  }

  /** Saves under way come to nothing. @param dueAt from when on what they have written can be deleted */
  #abandonSaves(where: string, value: SqlStorageValue, dueAt: number): void {
    const saves = this.#rows<{ id: string }>(`DELETE FROM saves WHERE ${where} RETURNING id`, value);
    for (const { id } of saves) this.#discard(id, dueAt);
  }

  /** A sandbox is used: its state goes on living. */
  used(sandbox: string, now = Date.now()): void {
    this.#sql("UPDATE workspaces SET used_at = ? WHERE sandbox = ?", now, sandbox);
  }

  /**
   * Keeps what the sandbox of a checkpoint or of a task was set to, as JSON, for its forks. One that has that already keeps it.
   * @param origin the id of the checkpoint, or of the task's run
   */
  keepSettings(origin: string, settings: string): void {
    this.#sql("INSERT OR IGNORE INTO checkpoint_settings VALUES (?, ?)", origin, settings);
  }

  /** What the sandbox of a checkpoint or of a task was set to, if anything. */
  settings(origin: string): string | undefined {
    return this.#rows<{ settings: string }>(
      "SELECT settings FROM checkpoint_settings WHERE checkpoint = ?",
      origin,
    )[0]?.settings;
  }

  /** A sandbox was destroyed: its state ends, and a save of it that is under way. Answers whether it had one. */
  forget(sandbox: string, now = Date.now()): boolean {
    return this.#storage.transactionSync(() => {
      const { rowsWritten } = this.#sql("DELETE FROM workspaces WHERE sandbox = ?", sandbox);
      this.#abandonSaves("sandbox = ?", sandbox, now + WRITING_MS);
      this.#collect(now);
      return rowsWritten > 0;
    });
  }

  /** Whether a sandbox has a state. */
  has(sandbox: string): boolean {
    return this.#currentID(sandbox) !== undefined;
  }

  /** Names the current state of a sandbox. @throws {ToolError} `not_found` where it has none, `quota_exceeded` */
  checkpoint(sandbox: string, label: string, now = Date.now()): Checkpoint {
    return this.#storage.transactionSync(() => {
      const snapshot = this.#currentID(sandbox);
      if (snapshot === undefined) throw nothingToKeep(sandbox);
      const { checkpoints: allowed, workspaceBytes } = this.#limits;
      const { used } = this.#row<{ used: number }>("SELECT count(*) AS used FROM checkpoints");
      if (used >= allowed) throw quotaError({ limit: "checkpoints", allowed, used });
      if (this.#lastingBytes() >= workspaceBytes) throw this.full();
      return this.#keep(sandbox, snapshot, label, false, now);
    });
  }

  /**
   * Gives a sandbox the state of a checkpoint. Its state before becomes a checkpoint, unless it has one: that is answered.
   * @throws {ToolError} `not_found`
   */
  restoreCheckpoint(sandbox: string, id: string, now = Date.now()): { to: Checkpoint; before?: Checkpoint } {
    return this.#storage.transactionSync(() => {
      const to = this.known(id);
      const snapshot = this.#currentID(sandbox);
      const before = snapshot === undefined ? undefined : this.#keptBefore(sandbox, snapshot, to, now);
      this.#setCurrent(sandbox, this.#snapshotOf(id), now);
      // A save that is under way is of the state before.
      this.#abandonSaves("sandbox = ?", sandbox, now + WRITING_MS);
      this.#collect(now);
      return { to, before };
    });
  }

  #keptBefore(sandbox: string, snapshot: string, to: Checkpoint, now: number): Checkpoint {
    const [kept] = this.#rows<{ id: string }>(
      "SELECT id FROM checkpoints WHERE snapshot = ? ORDER BY created_at DESC, id LIMIT 1",
      snapshot,
    );
    if (kept) return this.known(kept.id);
    const { automatic } = this.#row<{ automatic: number }>(
      "SELECT automatic FROM checkpoints WHERE id = ?",
      to.id,
    );
    // The label of one that was made so would grow each time.
    const name = automatic ? to.id : to.label || to.id;
    const before = this.#keep(sandbox, snapshot, `before going back to ${name}`, true, now);
    this.#sql(
      `DELETE FROM checkpoints WHERE id IN (SELECT id FROM checkpoints WHERE sandbox = ? AND automatic
       ORDER BY created_at DESC, rowid DESC LIMIT -1 OFFSET ?)`,
      sandbox,
      KEPT_BEFORE,
    );
    return before;
  }

  /** Makes the state of a checkpoint that of a sandbox that has none. @throws {ToolError} `not_found` */
  fork(sandbox: string, id: string, now = Date.now()): Checkpoint {
    return this.#storage.transactionSync(() => {
      const checkpoint = this.known(id);
      this.#setCurrent(sandbox, this.#snapshotOf(id), now);
      return checkpoint;
    });
  }

  /** Deletes the checkpoints of a sandbox; answers how many there were. */
  removeCheckpoints(sandbox: string, now = Date.now()): number {
    return this.#storage.transactionSync(() => {
      const { length } = this.#rows("DELETE FROM checkpoints WHERE sandbox = ? RETURNING id", sandbox);
      this.#collect(now);
      return length;
    });
  }

  /** Deletes one checkpoint of a sandbox, and answers it. @throws {ToolError} `not_found`, `invalid_argument` for another's */
  removeCheckpoint(sandbox: string, id: string, now = Date.now()): Checkpoint {
    return this.#storage.transactionSync(() => {
      const checkpoint = this.known(id);
      if (checkpoint.sandbox !== sandbox) throw otherSandboxesCheckpoint(id, checkpoint.sandbox, sandbox);
      this.#sql("DELETE FROM checkpoints WHERE id = ?", id);
      this.#collect(now);
      return checkpoint;
    });
  }

  /** A checkpoint. @throws {ToolError} `not_found` */
  known(id: string): Checkpoint {
    const [checkpoint] = this.#checkpoints("c.id = ?", id);
    if (checkpoint) return checkpoint;
    throw noCheckpoint(id);
  }

  /** The newest first. */
  checkpoints(): Checkpoint[] {
    return this.#checkpoints("true");
  }

  #checkpoints(where: string, ...values: SqlStorageValue[]): Checkpoint[] {
    return this.#rows<CheckpointRow>(
      `SELECT c.id, c.sandbox, c.label, c.expires_at, s.saved_at, s.files, s.bytes FROM checkpoints c
       JOIN snapshots s ON s.id = c.snapshot WHERE ${where} ORDER BY c.created_at DESC, c.rowid DESC`,
      ...values,
    ).map(({ id, sandbox, label, saved_at: savedAt, files, bytes, expires_at: expiresAt }) => {
      return { id, sandbox, label, savedAt, files, bytes, expiresAt };
    });
  }

  /** The sandboxes that have a state. */
  workspaces(): SavedWorkspace[] {
    return this.#rows<WorkspaceRow>(
      `SELECT w.sandbox, w.created_at, w.used_at, s.saved_at, s.files, s.bytes FROM workspaces w
       JOIN snapshots s ON s.id = w.snapshot ORDER BY w.used_at DESC, w.sandbox`,
    ).map(({ sandbox, created_at, used_at, saved_at, files, bytes }) => {
      return { sandbox, createdAt: created_at, usedAt: used_at, savedAt: saved_at, files, bytes };
    });
  }

  /** Bytes of all packs and manifests. */
  get bytes(): number {
    return this.#bytesOf("SELECT id FROM snapshots");
  }

  /** Bytes of the states that do not give way: those of sandboxes, except one of them, and of checkpoints. */
  #lastingBytes(except = ""): number {
    return this.#bytesOf(
      "SELECT snapshot FROM checkpoints UNION SELECT snapshot FROM workspaces WHERE sandbox <> ?",
      except,
    );
  }

  #bytesOf(snapshots: string, ...values: SqlStorageValue[]): number {
    return this.#row<{ bytes: number }>(
      `WITH counted (id) AS (${snapshots}) SELECT
         (SELECT coalesce(sum(manifest_bytes), 0) FROM snapshots WHERE id IN counted) + (SELECT coalesce(sum(bytes), 0)
         FROM packs WHERE id IN (SELECT pack FROM pack_refs WHERE snapshot IN counted)) AS bytes`,
      ...values,
    ).bytes;
  }

  /** Ends the checkpoints whose time is over, the states of sandboxes that nobody used for as long, and lost saves. */
  expire(now = Date.now()): void {
    this.#storage.transactionSync(() => {
      for (const table of ["checkpoints", "archives"])
        this.#sql(`DELETE FROM ${table} WHERE expires_at <= ?`, now);
      this.#sql("DELETE FROM workspaces WHERE used_at <= ?", now - this.#keepMs);
      this.#abandonSaves("begun_at <= ?", now - WRITING_MS, now);
      this.#collect(now);
    });
  }

  /** Deletes garbage that is due by `remove`, which takes a prefix of keys. What it refuses waits for another time. */
  async sweep(remove: (prefix: string) => Promise<void>, now = Date.now()): Promise<void> {
    for (;;) {
      const due = this.#rows<{ prefix: string }>(
        "SELECT prefix FROM garbage WHERE due_at <= ? ORDER BY due_at LIMIT ?",
        now,
        BATCH,
      );
      if (due.length === 0) return;
      for (const { prefix } of due) {
        const isGone = await remove(prefix).then(
          () => true,
          () => false,
        );
        if (isGone) this.#sql("DELETE FROM garbage WHERE prefix = ?", prefix);
        else this.#sql("UPDATE garbage SET due_at = ? WHERE prefix = ?", now + DELETE_RETRY_MS, prefix);
      }
    }
  }

  /** When there is something to expire or to delete, milliseconds since the epoch. */
  nextDue(): number | undefined {
    const { due } = this.#row<{ due: number | null }>(
      `SELECT min(due) AS due FROM (SELECT min(due_at) AS due FROM garbage UNION ALL SELECT min(expires_at) FROM checkpoints
       UNION ALL SELECT min(expires_at) FROM archives UNION ALL SELECT min(used_at) + ?1 FROM workspaces UNION ALL SELECT min(begun_at) + ?2 FROM saves)`,
      this.#keepMs,
      WRITING_MS,
    );
    return due ?? undefined;
  }

  #currentID(sandbox: string): string | undefined {
    return this.#rows<{ snapshot: string }>("SELECT snapshot FROM workspaces WHERE sandbox = ?", sandbox)[0]
      ?.snapshot;
  }

  #snapshotOf(checkpoint: string): string {
    return this.#row<{ snapshot: string }>("SELECT snapshot FROM checkpoints WHERE id = ?", checkpoint)
      .snapshot;
  }

  #setCurrent(sandbox: string, snapshot: string, now: number): void {
    this.#sql(
      `INSERT INTO workspaces VALUES (?1, ?2, ?3, ?3)
       ON CONFLICT (sandbox) DO UPDATE SET snapshot = ?2, used_at = ?3`,
      sandbox,
      snapshot,
      now,
    );
  }

  /** @throws Error unless the sandbox has this current state */
  #requireBase(sandbox: string, base: string | undefined): void {
    const current = this.#currentID(sandbox);
    if (current !== base) throw new Error(`${sandbox} was to be saved after ${base}, but has ${current}`);
  }

  #keep(sandbox: string, snapshot: string, label: string, automatic: boolean, now: number): Checkpoint {
    const id = `cp-${randomLetters(12)}`;
    this.#sql(
      "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)",
      id,
      sandbox,
      snapshot,
      label,
      Number(automatic),
      now,
      now + this.#keepMs,
    );
    return this.known(id);
  }

  /** Makes garbage of all objects of a save. */
  #discard(id: string, dueAt: number): void {
    this.#sql("INSERT OR IGNORE INTO garbage VALUES (?, ?)", `${id}/`, dueAt);
  }

  /** Makes garbage of what nothing refers to. */
  #collect(now: number): void {
    const snapshots = this.#rows<{ id: string }>(
      `DELETE FROM snapshots WHERE id NOT IN (SELECT snapshot FROM workspaces)
       AND id NOT IN (SELECT snapshot FROM checkpoints) AND id NOT IN (SELECT snapshot FROM archives) RETURNING id`,
    );
    for (const { id } of snapshots) {
      this.#sql("DELETE FROM pack_refs WHERE snapshot = ?", id);
      this.#sql("INSERT OR IGNORE INTO garbage VALUES (?, ?)", manifestPrefix(id), now);
    }
    this.#sql(
      `DELETE FROM checkpoint_settings WHERE checkpoint NOT IN (SELECT id FROM checkpoints)
       AND checkpoint NOT IN (SELECT run FROM archives)`,
    );
    const packs = this.#rows<{ id: string }>(
      "DELETE FROM packs WHERE id NOT IN (SELECT pack FROM pack_refs) RETURNING id",
    );
    for (const { id } of packs) this.#sql("INSERT OR IGNORE INTO garbage VALUES (?, ?)", packPrefix(id), now);
  }

  /** The error for a save or a checkpoint that takes more than the principal's limit. */
  full(): ToolError {
    const { workspaceBytes: allowed } = this.#limits;
    return quotaError({ limit: "workspaceBytes", allowed, used: this.bytes });
  }

  #sql(query: string, ...values: SqlStorageValue[]) {
    return this.#storage.sql.exec(query, ...values);
  }

  #rows<Row extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): Row[] {
    return this.#storage.sql.exec<Row>(query, ...values).toArray();
  }

  #row<Row extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): Row {
    return this.#storage.sql.exec<Row>(query, ...values).one();
  }
}

/** The prefix of the keys in R2 under which the workspaces of a principal are saved. */
export function workspacesPrefix(principalHash: string): string {
  return `${principalHash}/workspaces/`;
}

/** The prefixes of a save's objects, behind that of the principal's workspaces. A number of five digits follows. */
export function packPrefix(id: string): string {
  return `${id}/pack.`;
}

export function manifestPrefix(id: string): string {
  return `${id}/manifest.`;
}

type SnapshotRow = {
  id: string;
  saved_at: number;
  files: number;
  bytes: number;
  manifest_bytes: number;
  left_out: string | null;
};

type WorkspaceRow = {
  sandbox: string;
  created_at: number;
  used_at: number;
  saved_at: number;
  files: number;
  bytes: number;
};

type CheckpointRow = {
  id: string;
  sandbox: string;
  label: string;
  expires_at: number;
  saved_at: number;
  files: number;
  bytes: number;
};

function snapshotOf(row: SnapshotRow): Omit<Snapshot, "packs"> {
  const { id, saved_at: savedAt, files, bytes, manifest_bytes: manifestBytes, left_out: left } = row;
  return {
    id,
    savedAt,
    files,
    bytes,
    manifestBytes,
    left: left === null ? undefined : (JSON.parse(left) as LeftOut),
  };
}
