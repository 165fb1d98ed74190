/**
 * The saved states of a principal's sandboxes, in the tables of the principal's `Account`.
 *
 * A snapshot is one state: a manifest, and the packs with its content. It lives while it is a sandbox's current state, or while a
 * checkpoint, or an archive of a task or set-up, refers to it. A pack lives while a snapshot refers to it. When space is short,
 * archives are evicted in the order of their expiry.
 *
 * Every step is one transaction. The transaction also records unreferenced objects as garbage: a row with their R2 key prefix.
 * The row stays until R2 has deleted the objects, so neither a crash nor an R2 error leaves objects behind.
 */
import type { Limits } from "../shared/config.ts";
import { DAY_MS } from "../shared/days.ts";
import type { ToolError } from "../shared/errors.ts";
import { randomLetters } from "../shared/names.ts";
import type { Archive, Checkpoint, LeftOut, Pack, Save, SavedWorkspace, Snapshot } from "./saved-states.ts";
import { Rows } from "../storage/rows.ts";
import { SnapshotGarbage } from "./snapshot-garbage.ts";
import {
  noCheckpoint,
  nothingToKeep,
  otherSandboxesCheckpoint,
  quotaError,
  taskFilesNotKept,
} from "./texts.ts";

/** How long a save may take. The objects of an interrupted or abandoned save are deleted only after this time. */
const WRITING_MS = 3_600_000;

/** The most automatic checkpoints per sandbox; the newest stay. A principal has at most as many as its limit of checkpoints. */
const MAX_AUTOMATIC = 10;

/** The most stored outcomes of set-ups, and the most tasks with archives. The newest stay. */
const MAX_OUTCOMES = 100;
const MAX_TASKS = 2000;

/** The states of running sandboxes never expire: if the clock jumps ahead, their last use seems to be long ago. */
const MAY_EXPIRE = "sandbox NOT IN (SELECT name FROM sandboxes WHERE state = 'running')";

/** The values of a list in JSON. */
const LISTED = "(SELECT value FROM json_each(?))";

type StateStorage = Pick<DurableObjectStorage, "sql" | "transactionSync">;

export class SnapshotRegistry {
  readonly #storage: StateStorage;
  readonly #rows: Rows;
  readonly #garbage: SnapshotGarbage;
  readonly #limits: Pick<Limits, "checkpoints" | "workspaceBytes">;
  readonly #keepMs: number;

  /** @param ttlDays the life of a checkpoint, and of a state after its sandbox's last use */
  constructor(
    storage: StateStorage,
    limits: Pick<Limits, "checkpoints" | "workspaceBytes">,
    ttlDays: number,
  ) {
    this.#storage = storage;
    this.#rows = new Rows(storage.sql);
    this.#garbage = new SnapshotGarbage(this.#rows);
    this.#limits = limits;
    this.#keepMs = ttlDays * DAY_MS;
  }

  current(sandbox: string): Snapshot | undefined {
    return this.#snapshot("workspaces w JOIN snapshots s ON s.id = w.snapshot WHERE w.sandbox = ?", sandbox);
  }

  #snapshot(from: string, ...values: SqlStorageValue[]): Snapshot | undefined {
    type Row = Omit<Snapshot, "packs" | "left"> & { left: string | null };
    const [row] = this.#rows.all<Row>(
      `SELECT s.id, s.saved_at AS savedAt, s.files, s.bytes, s.manifest_bytes AS manifestBytes, s.left_out AS "left" FROM ${from}`,
      ...values,
    );
    if (!row) return undefined;
    const left = row.left === null ? undefined : (JSON.parse(row.left) as LeftOut);
    return { ...row, left, packs: this.#packs(row.id) };
  }

  #packs(snapshot: string): Pack[] {
    return this.#rows.all<Pack>(
      "SELECT p.id, p.bytes, r.live FROM pack_refs r JOIN packs p ON p.id = r.pack WHERE r.snapshot = ? ORDER BY p.id",
      snapshot,
    );
  }

  currentArchive(sandbox: string): Snapshot | undefined {
    const snapshot = this.current(sandbox);
    return snapshot && this.#isArchive(snapshot.id) ? snapshot : undefined;
  }

  #isArchive(snapshot: string): boolean {
    return this.#rows.all("SELECT run FROM archives WHERE snapshot = ? LIMIT 1", snapshot).length > 0;
  }

  findArchive(run: string, part: Archive["part"]): Snapshot | undefined {
    return this.#snapshot(
      "archives a JOIN snapshots s ON s.id = a.snapshot WHERE a.run = ? AND a.part = ?",
      run,
      part,
    );
  }

  /**
   * Begins a save, and abandons the sandbox's earlier one. Returns how many bytes the new one may add.
   * @param isArchive whether the save becomes an archive @param notEnough the free bytes that were too few for an earlier save
   * @throws {ToolError} if the save may add no more than `notEnough`
   * @throws Error if the sandbox's current state is not `base` any more
   */
  begin(
    sandbox: string,
    id: string,
    base: string | undefined,
    isArchive = false,
    notEnough = -1,
    now = Date.now(),
  ): number {
    return this.#storage.transactionSync(() => {
      if (!isArchive) this.#requireBase(sandbox, base);
      // The new state replaces the previous one, so the bytes of the previous one do not count.
      const room = this.#limits.workspaceBytes - this.#lastingBytes(isArchive ? undefined : sandbox);
      if (Math.max(0, room) <= notEnough) throw this.fullError();
      const [before] = this.#rows.all<{ id: string }>("SELECT id FROM saves WHERE sandbox = ?", sandbox);
      if (before) this.#garbage.discard(before.id, now + WRITING_MS);
      this.#rows.write("INSERT OR REPLACE INTO saves VALUES (?, ?, ?)", sandbox, id, now);
      return Math.max(0, room);
    });
  }

  /**
   * Turns a save into its sandbox's current state, or into an archive. A repeated call changes nothing.
   * @param packBytes the size of the pack that the save added
   * @throws {ToolError} if the principal's limit is exceeded
   * @throws Error if the save was abandoned, has another base, or refers to unknown packs
   */
  commit(save: Save, packBytes: number, now = Date.now()): void {
    this.#storage.transactionSync(() => {
      const { sandbox, id, base, archive } = save;
      if (this.#currentID(sandbox) === id || this.#isArchive(id)) return;
      if (!archive) this.#requireBase(sandbox, base);
      if (this.#rows.write("DELETE FROM saves WHERE sandbox = ? AND id = ?", sandbox, id) === 0)
        throw new Error(`save ${id} was abandoned`);
      const bytesBefore = this.bytes;
      const known = new Map(this.#packs(base ?? "").map((pack) => [pack.id, pack.bytes]));
      if (packBytes > 0) {
        known.set(id, packBytes);
        this.#rows.write("INSERT INTO packs VALUES (?, ?)", id, packBytes);
      }
      this.#rows.write(
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
        if (bytes === undefined) throw new Error(`save ${id} refers to a missing pack: ${pack.id}`);
        this.#rows.write("INSERT INTO pack_refs VALUES (?, ?, ?)", id, pack.id, Math.min(pack.live, bytes));
      }
      if (archive) this.#keepArchive(archive, id);
      else this.#setCurrent(sandbox, id, now);
      this.#limitBytes(bytesBefore, archive?.run, now);
    });
  }

  /** @throws {ToolError} if the principal's limit is exceeded */
  archive(snapshot: string, archive: Archive, now = Date.now()): void {
    this.#storage.transactionSync(() => {
      const bytesBefore = this.bytes;
      if (this.#rows.all("SELECT id FROM snapshots WHERE id = ?", snapshot).length === 0)
        throw new Error(`there is no state ${snapshot} any more`);
      this.#keepArchive(archive, snapshot);
      this.#limitBytes(bytesBefore, archive.run, now);
    });
  }

  /** Makes room for an archive or state that was added. @throws {ToolError} if the principal's limit is exceeded */
  #limitBytes(bytesBefore: number, except: string | undefined, now: number): void {
    this.#garbage.collect(now);
    this.#makeRoom(except, now);
    if (this.bytes > this.#limits.workspaceBytes && this.bytes > bytesBefore) throw this.fullError();
  }

  #keepArchive({ run, part, expiresAt, settings }: Archive, snapshot: string): void {
    this.#rows.write("INSERT OR REPLACE INTO archives VALUES (?, ?, ?, ?)", run, part, snapshot, expiresAt);
    if (settings !== undefined) this.keepSettings(run, settings);
    // Ids of runs contain a dot, and may also begin with setup:, because names of sandboxes may.
    const isOutcome = run.startsWith("setup:") && !run.includes(".");
    this.#rows.write(
      `DELETE FROM archives WHERE run IN (SELECT run FROM archives WHERE (run GLOB 'setup:*' AND run NOT GLOB '*.*') = ? AND run <> ?
       GROUP BY run ORDER BY min(expires_at) DESC, run LIMIT -1 OFFSET ?)`,
      Number(isOutcome),
      run,
      (isOutcome ? MAX_OUTCOMES : MAX_TASKS) - 1,
    );
  }

  /**
   * Evicts archives in the order of their expiry until the limit is no longer exceeded. Evicts none if evicting all of them would
   * not be enough.
   */
  #makeRoom(except: string | undefined, now: number): void {
    const { workspaceBytes } = this.#limits;
    let excessBytes = this.bytes - workspaceBytes;
    if (excessBytes <= 0 || this.#lastingBytes() > workspaceBytes) return;
    const runs: string[] = [];
    for (const { run, bytes } of this.#evictable(except)) {
      if (excessBytes <= 0) break;
      runs.push(run);
      excessBytes -= bytes;
    }
    this.#removeArchives(runs, now);
  }

  /**
   * The runs with archives in the order of their expiry, and how many bytes the eviction of each one frees after those before it. One
   * query for all, because a count of what remains reads all archives.
   */
  #evictable(except: string | undefined): { run: string; bytes: number }[] {
    return this.#rows.all(
      `WITH ranked (run, rank) AS (
         SELECT run, row_number() OVER (ORDER BY min(expires_at), run) FROM archives WHERE run IS NOT ?1 GROUP BY run),
       freed_snapshots (snapshot, rank) AS (
         SELECT snapshot, max(rank) FROM archives JOIN ranked USING (run) WHERE snapshot NOT IN (
           SELECT snapshot FROM checkpoints UNION SELECT snapshot FROM workspaces
           UNION SELECT snapshot FROM archives WHERE run IS ?1) GROUP BY snapshot),
       freed_packs (pack, rank) AS (
         SELECT pack, max(rank) FROM pack_refs LEFT JOIN freed_snapshots USING (snapshot)
         GROUP BY pack HAVING count(rank) = count(*)),
       freed (rank, bytes) AS (
         SELECT rank, manifest_bytes FROM freed_snapshots JOIN snapshots ON id = snapshot
         UNION ALL SELECT rank, bytes FROM freed_packs JOIN packs ON id = pack
         UNION ALL SELECT rank, octet_length(settings) FROM ranked JOIN checkpoint_settings ON checkpoint = run)
       SELECT run, coalesce(sum(bytes), 0) AS bytes FROM ranked LEFT JOIN freed USING (rank) GROUP BY rank ORDER BY rank`,
      except ?? null,
    );
  }

  removeArchive(run: string, now = Date.now()): void {
    this.#storage.transactionSync(() => this.#removeArchives([run], now));
  }

  #removeArchives(runs: readonly string[], now: number): void {
    this.#rows.write(`DELETE FROM archives WHERE run IN ${LISTED}`, JSON.stringify(runs));
    this.#garbage.collect(now);
  }

  /** Creates a sandbox's first state from the archive of a task or set-up. @throws {ToolError} `not_found` */
  forkArchive(sandbox: string, run: string, now = Date.now()): void {
    this.#storage.transactionSync(() => this.#setCurrent(sandbox, this.requireArchive(run).id, now));
  }

  /** The archived workspace of a task or set-up. @throws {ToolError} `not_found` */
  requireArchive(run: string): Snapshot {
    const archive = this.findArchive(run, "workspace");
    if (archive) return archive;
    throw taskFilesNotKept(run);
  }

  /** Ends a save that was not committed. @param isWriting whether writes of its objects may still be under way */
  abandonSave(sandbox: string, id: string, isWriting: boolean, now = Date.now()): void {
    this.#storage.transactionSync(() => {
      this.#rows.write("DELETE FROM saves WHERE sandbox = ? AND id = ?", sandbox, id);
      const dueAt = isWriting ? now + WRITING_MS : now;
      const committed = "SELECT id FROM snapshots WHERE id = ?1 UNION SELECT id FROM packs WHERE id = ?1";
      // Even if the save has expired, and its garbage was deleted: it may have written since then, for example after the machine slept.
      if (this.#rows.all(committed, id).length === 0) this.#garbage.discard(id, dueAt);
      this.#garbage.advance(id, dueAt);
    });
  }

  #abandonSaves(where: string, value: SqlStorageValue, dueAt: number): void {
    const saves = this.#rows.all<{ id: string }>(`DELETE FROM saves WHERE ${where} RETURNING id`, value);
    for (const { id } of saves) this.#garbage.discard(id, dueAt);
  }

  /** Extends the life of a used sandbox's state. */
  noteUse(sandbox: string): void {
    this.#rows.write("UPDATE workspaces SET used_at = ? WHERE sandbox = ?", Date.now(), sandbox);
  }

  /**
   * Stores settings as JSON for forks, unless settings are stored already. @param origin the id of the checkpoint, or of the
   * task's run
   */
  keepSettings(origin: string, settings: string): void {
    this.#rows.write("INSERT OR IGNORE INTO checkpoint_settings VALUES (?, ?)", origin, settings);
  }

  /** The settings that `keepSettings` has stored, as JSON. */
  settings(origin: string): string | undefined {
    return this.#rows.all<{ settings: string }>(
      "SELECT settings FROM checkpoint_settings WHERE checkpoint = ?",
      origin,
    )[0]?.settings;
  }

  /** The saved state from which `settings(origin)` come. */
  ofSettings(origin: string): Snapshot | undefined {
    return this.#snapshot(
      `snapshots s WHERE s.id IN (SELECT snapshot FROM checkpoints WHERE id = ?1 UNION ALL
       SELECT snapshot FROM archives WHERE run = ?1 AND part = 'workspace')`,
      origin,
    );
  }

  /** Deletes a destroyed sandbox's state and abandons its save under way. Returns whether it had a state. */
  forget(sandbox: string, now = Date.now()): boolean {
    return this.#storage.transactionSync(() => {
      const rowsWritten = this.#rows.write("DELETE FROM workspaces WHERE sandbox = ?", sandbox);
      this.#abandonSaves("sandbox = ?", sandbox, now + WRITING_MS);
      this.#garbage.collect(now);
      return rowsWritten > 0;
    });
  }

  has(sandbox: string): boolean {
    return this.#currentID(sandbox) !== undefined;
  }

  /** Creates a checkpoint of a sandbox's state. @throws {ToolError} `not_found` if there is no state, `quota_exceeded` */
  checkpoint(sandbox: string, label: string, now = Date.now()): Checkpoint {
    return this.#storage.transactionSync(() => {
      const snapshot = this.#currentID(sandbox);
      if (snapshot === undefined) throw nothingToKeep(sandbox);
      const { checkpoints: allowed, workspaceBytes } = this.#limits;
      const { used } = this.#rows.one<{ used: number }>("SELECT count(*) AS used FROM checkpoints");
      if (used >= allowed) throw quotaError({ limit: "checkpoints", allowed, used });
      if (this.#lastingBytes() >= workspaceBytes) throw this.fullError();
      return this.#addCheckpoint(sandbox, snapshot, label, false, now);
    });
  }

  /**
   * Sets the sandbox's state to a checkpoint. Also returns the sandbox's checkpoint of the previous state, and creates it if needed,
   * and the ids of automatic checkpoints that were deleted for it.
   * @param settings the sandbox's settings as JSON, stored with a checkpoint that is created
   * @throws {ToolError} `not_found`
   */
  restoreCheckpoint(
    sandbox: string,
    id: string,
    settings?: string,
    now = Date.now(),
  ): { to: Checkpoint; before?: Checkpoint; deleted: string[] } {
    return this.#storage.transactionSync(() => {
      const to = this.requireCheckpoint(id);
      const snapshot = this.#currentID(sandbox);
      const before =
        snapshot === undefined
          ? undefined
          : (this.#checkpointOf(sandbox, snapshot) ??
            this.#checkpointBeforeRestore(sandbox, snapshot, to, settings, now));
      const deleted = before ? this.#limitAutomatic(sandbox, [to.id, before.id]) : [];
      this.#setCurrent(sandbox, this.#snapshotOf(id), now);
      // A save under way would store the previous state.
      this.#abandonSaves("sandbox = ?", sandbox, now + WRITING_MS);
      this.#garbage.collect(now);
      return { to, before, deleted };
    });
  }

  /** The sandbox's newest checkpoint of a state. Another sandbox may have the same state, and other settings. */
  #checkpointOf(sandbox: string, snapshot: string): Checkpoint | undefined {
    return this.#checkpoints("c.sandbox = ? AND c.snapshot = ?", sandbox, snapshot)[0];
  }

  #checkpointBeforeRestore(
    sandbox: string,
    snapshot: string,
    to: Checkpoint,
    settings: string | undefined,
    now: number,
  ): Checkpoint {
    const { automatic } = this.#rows.one<{ automatic: number }>(
      "SELECT automatic FROM checkpoints WHERE id = ?",
      to.id,
    );
    // An automatic checkpoint is named by its id. If labels contained labels of automatic checkpoints, each restore would make a
    // longer label.
    const name = automatic ? to.id : to.label || to.id;
    const before = this.#addCheckpoint(sandbox, snapshot, `before going back to ${name}`, true, now);
    if (settings !== undefined) this.keepSettings(before.id, settings);
    return before;
  }

  /** Deletes the oldest automatic checkpoints beyond the limits, except those in `kept`. Returns their ids. */
  #limitAutomatic(sandbox: string, kept: [string, string]): string[] {
    const deleted = this.#rows.all<{ id: string }>(
      `DELETE FROM checkpoints WHERE id NOT IN (?, ?) AND (id IN (SELECT id FROM checkpoints WHERE sandbox = ? AND automatic
       ORDER BY created_at DESC, rowid DESC LIMIT -1 OFFSET ?) OR id IN (SELECT id FROM checkpoints WHERE automatic
       ORDER BY created_at DESC, rowid DESC LIMIT -1 OFFSET ?)) RETURNING id`,
      ...kept,
      sandbox,
      MAX_AUTOMATIC,
      this.#limits.checkpoints,
    );
    return deleted.map(({ id }) => id);
  }

  /** Creates a sandbox's first state from a checkpoint. @throws {ToolError} `not_found` */
  fork(sandbox: string, id: string, now = Date.now()): void {
    this.#storage.transactionSync(() => {
      this.requireCheckpoint(id);
      this.#setCurrent(sandbox, this.#snapshotOf(id), now);
    });
  }

  /** Returns how many checkpoints were removed. */
  removeCheckpoints(sandbox: string, now = Date.now()): number {
    return this.#storage.transactionSync(() => {
      const { length } = this.#rows.all("DELETE FROM checkpoints WHERE sandbox = ? RETURNING id", sandbox);
      this.#garbage.collect(now);
      return length;
    });
  }

  /** @throws {ToolError} `not_found`; `invalid_argument` for a checkpoint of another sandbox */
  removeCheckpoint(sandbox: string, id: string, now = Date.now()): void {
    this.#storage.transactionSync(() => {
      const checkpoint = this.requireCheckpoint(id);
      if (checkpoint.sandbox !== sandbox) throw otherSandboxesCheckpoint(id, checkpoint.sandbox, sandbox);
      this.#rows.write("DELETE FROM checkpoints WHERE id = ?", id);
      this.#garbage.collect(now);
    });
  }

  requireCheckpoint(id: string): Checkpoint {
    const [checkpoint] = this.#checkpoints("c.id = ?", id);
    if (checkpoint) return checkpoint;
    throw noCheckpoint(id);
  }

  /** Newest first. */
  checkpoints(): Checkpoint[] {
    return this.#checkpoints("true");
  }

  #checkpoints(where: string, ...values: SqlStorageValue[]): Checkpoint[] {
    return this.#rows.all<Checkpoint>(
      `SELECT c.id, c.sandbox, c.label, c.expires_at AS expiresAt, s.saved_at AS savedAt, s.files, s.bytes FROM checkpoints c
       JOIN snapshots s ON s.id = c.snapshot WHERE ${where} ORDER BY c.created_at DESC, c.rowid DESC`,
      ...values,
    );
  }

  workspaces(): SavedWorkspace[] {
    return this.#rows.all<SavedWorkspace>(
      `SELECT w.sandbox, w.created_at AS createdAt, w.used_at AS usedAt, s.saved_at AS savedAt, s.bytes FROM workspaces w
       JOIN snapshots s ON s.id = w.snapshot ORDER BY w.used_at DESC, w.sandbox`,
    );
  }

  /** Everything that the tables refer to, because each change removes what nothing refers to. */
  get bytes(): number {
    const { bytes } = this.#rows.one<{ bytes: number }>(
      `SELECT (SELECT coalesce(sum(manifest_bytes), 0) FROM snapshots) + (SELECT coalesce(sum(bytes), 0) FROM packs) AS bytes`,
    );
    return bytes + this.#settingsBytes("true");
  }

  /** Bytes of the states of checkpoints and sandboxes, which are never evicted. @param except a sandbox to leave out */
  #lastingBytes(except = ""): number {
    const snapshots =
      "SELECT snapshot FROM checkpoints UNION SELECT snapshot FROM workspaces WHERE sandbox <> ?";
    const settings = "checkpoint IN (SELECT id FROM checkpoints)";
    return this.#bytesOf(snapshots, except) + this.#settingsBytes(settings);
  }

  #settingsBytes(where: string, ...values: SqlStorageValue[]): number {
    const query = `SELECT coalesce(sum(octet_length(settings)), 0) AS bytes FROM checkpoint_settings WHERE ${where}`;
    return this.#rows.one<{ bytes: number }>(query, ...values).bytes;
  }

  #bytesOf(snapshots: string, ...values: SqlStorageValue[]): number {
    return this.#rows.one<{ bytes: number }>(
      `WITH counted (id) AS (${snapshots}) SELECT
         (SELECT coalesce(sum(manifest_bytes), 0) FROM snapshots WHERE id IN counted) + (SELECT coalesce(sum(bytes), 0)
         FROM packs WHERE id IN (SELECT pack FROM pack_refs WHERE snapshot IN counted)) AS bytes`,
      ...values,
    ).bytes;
  }

  /** Deletes expired checkpoints and archives, and states of long unused sandboxes. Abandons saves that never ended. */
  expire(now = Date.now()): void {
    this.#storage.transactionSync(() => {
      this.#rows.write("DELETE FROM checkpoints WHERE expires_at <= ?", now);
      this.#rows.write("DELETE FROM archives WHERE expires_at <= ?", now);
      this.#rows.write(`DELETE FROM workspaces WHERE used_at <= ? AND ${MAY_EXPIRE}`, now - this.#keepMs);
      this.#abandonSaves("begun_at <= ?", now - WRITING_MS, now);
      this.#garbage.collect(now);
    });
  }

  sweep(...sweep: Parameters<SnapshotGarbage["sweep"]>): Promise<void> {
    return this.#garbage.sweep(...sweep);
  }

  /** When the next state expires or the next garbage is due, in milliseconds since the epoch. */
  nextDue(): number | undefined {
    const { due } = this.#rows.one<{ due: number | null }>(
      `SELECT min(due) AS due FROM (SELECT min(due_at) AS due FROM garbage UNION ALL SELECT min(expires_at) FROM checkpoints
       UNION ALL SELECT min(expires_at) FROM archives UNION ALL SELECT min(used_at) + ?1 FROM workspaces WHERE ${MAY_EXPIRE}
       UNION ALL SELECT min(begun_at) + ?2 FROM saves)`,
      this.#keepMs,
      WRITING_MS,
    );
    return due ?? undefined;
  }

  #currentID(sandbox: string): string | undefined {
    return this.#rows.all<{ snapshot: string }>(
      "SELECT snapshot FROM workspaces WHERE sandbox = ?",
      sandbox,
    )[0]?.snapshot;
  }

  #snapshotOf(checkpoint: string): string {
    return this.#rows.one<{ snapshot: string }>("SELECT snapshot FROM checkpoints WHERE id = ?", checkpoint)
      .snapshot;
  }

  #setCurrent(sandbox: string, snapshot: string, now: number): void {
    this.#rows.write(
      `INSERT INTO workspaces VALUES (?1, ?2, ?3, ?3)
       ON CONFLICT (sandbox) DO UPDATE SET snapshot = ?2, used_at = ?3`,
      sandbox,
      snapshot,
      now,
    );
  }

  #requireBase(sandbox: string, base: string | undefined): void {
    const current = this.#currentID(sandbox);
    if (current !== base) throw new Error(`the current state of ${sandbox} is ${current}, not ${base}`);
  }

  #addCheckpoint(
    sandbox: string,
    snapshot: string,
    label: string,
    isAutomatic: boolean,
    now: number,
  ): Checkpoint {
    const id = `cp-${randomLetters(12)}`;
    this.#rows.write(
      "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)",
      id,
      sandbox,
      snapshot,
      label,
      Number(isAutomatic),
      now,
      now + this.#keepMs,
    );
    return this.requireCheckpoint(id);
  }

  /** The error for a save or a checkpoint that takes more than the principal's limit. */
  fullError(): ToolError {
    const { workspaceBytes: allowed } = this.#limits;
    return quotaError({ limit: "workspaceBytes", allowed, used: this.bytes });
  }
}
