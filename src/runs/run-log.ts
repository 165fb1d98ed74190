/**
 * The log of one run: what it printed, both streams in the order in which they were read. New output is collected in memory.
 * As soon as it fills an object, the object goes to R2, and a row of SQLite says where it is. The next flush writes what is
 * still in memory to rows, which move to R2 later, together. A cursor is an offset into the log in bytes, whatever holds them.
 */
import type { ObjectStore } from "../storage/object-store.ts";
import { joined } from "./head-and-tail.ts";
import { type LogPiece, STREAMS, type Stream } from "./run-types.ts";
import { logUnreadable } from "./texts.ts";

/** A row's data in bytes at most: SQLite in a Durable Object holds values of up to 2 MB. */
const ROW_BYTES = 512 * 1024;

/** Small pieces of output are joined into one row of up to so many bytes. */
const JOINED_BYTES = 32 * 1024;

/**
 * Bytes of an object in R2, plus at most one piece. An actor has 128 MB for everything and holds two objects: one being
 * filled and one being sent.
 */
const OBJECT_BYTES = 2 * 1024 * 1024;

/** A log of up to so many bytes stays in SQLite; a longer one goes to R2 as a whole. */
export const SQLITE_LOG_BYTES = 64 * 1024;

/** Bytes of a buffer for an object, and how many are kept for reuse: allocating one takes longer than filling it. */
const SPARE_BYTES = OBJECT_BYTES + ROW_BYTES;
const MAX_SPARE = 2;
const spare: Uint8Array[] = [];

/** A piece with its place in the log. */
interface PlacedPiece extends LogPiece {
  seq: number;
  start: number;
}

/** Pieces on their way from memory to R2. */
interface PiecesInTransit {
  pieces: PlacedPiece[];
  bytes: number;
  /** Whether a flush has written them to rows meanwhile. */
  isFlushed: boolean;
}

/** Where the objects of a sandbox's runs are in R2. */
export interface RunObjects {
  bucket: ObjectStore;
  /** `<principal hash>/<run id>/`, with which the keys of a run's objects begin. */
  prefix(runID: string): string;
}

/** Where whole objects of a log go. */
export interface LogStore {
  bucket: ObjectStore;
  /** `<principal hash>/<run id>/` */
  prefix: string;
}

type Row = {
  seq: number;
  stream: number;
  start: number;
  length: number;
  object: number | null;
  object_start: number | null;
  data: ArrayBuffer | null;
};

/** Writes one run's log. There is one for each run under way, in the actor that owns the run. */
export class LogWriter {
  readonly #sql: SqlStorage;
  readonly #runID: string;
  /** The log's cap in bytes. It can fall below what the log holds: then nothing is added. */
  readonly #cap: () => number;
  #isClosed = false;
  readonly #streamBytes: Record<Stream, number>;
  #pending: PlacedPiece[] = [];
  #pendingBytes = 0;
  #leaving: PiecesInTransit | undefined;
  /** The number of rows, written or to be written. */
  #rows: number;
  #objects: number;
  /** Bytes in rows that no object holds yet. */
  #unshipped: number;

  /** Goes on where the rows of an earlier actor end. */
  constructor(sql: SqlStorage, runID: string, cap: () => number, isNew: boolean) {
    this.#sql = sql;
    this.#runID = runID;
    this.#cap = cap;
    const found = isNew ? undefined : this.#found();
    this.#rows = found?.rows ?? 0;
    this.#streamBytes = { stdout: found?.stdout ?? 0, stderr: found?.stderr ?? 0 };
    this.#objects = found?.objects ?? 0;
    this.#unshipped = found?.unshipped ?? 0;
  }

  #found() {
    return this.#sql
      .exec<{ rows: number; stdout: number; stderr: number; objects: number; unshipped: number }>(
        `SELECT count(*) AS rows, coalesce(sum(length) FILTER (WHERE stream = 0), 0) AS stdout,
           coalesce(sum(length) FILTER (WHERE stream = 1), 0) AS stderr, coalesce(max(object) + 1, 0) AS objects,
           coalesce(sum(CASE WHEN object IS NULL THEN length END), 0) AS unshipped FROM log WHERE run = ?`,
        this.#runID,
      )
      .one();
  }

  get bytes(): number {
    return this.#streamBytes.stdout + this.#streamBytes.stderr;
  }

  hasRoom(stream: Stream): boolean {
    return this.#remainingBytes(stream) > 0;
  }

  /** Bytes that the cap leaves, and at least the stream's own share, so that one stream cannot use up the other's. */
  #remainingBytes(stream: Stream): number {
    const cap = this.#isClosed ? 0 : this.#cap();
    // After a gap nothing more is kept, so that the log is one piece from its beginning.
    this.#isClosed = cap === 0;
    return Math.max(0, cap - this.bytes, Math.floor(cap / 4) - this.#streamBytes[stream]);
  }

  /** Whether the log is too long to stay in SQLite. */
  get exceedsSQLite(): boolean {
    return this.bytes > SQLITE_LOG_BYTES;
  }

  /** Bytes that are to go to R2. */
  get waitingBytes(): number {
    return this.exceedsSQLite ? this.#pendingBytes + (this.#leaving?.bytes ?? 0) + this.#unshipped : 0;
  }

  /** Whether a whole object waits for R2. */
  get hasFullObject(): boolean {
    return this.#pendingBytes >= OBJECT_BYTES || this.#unshipped >= OBJECT_BYTES;
  }

  /** Whether too much waits in memory, because R2 takes none. */
  get isOverdue(): boolean {
    return this.#pendingBytes >= 2 * OBJECT_BYTES;
  }

  /** Takes as much of the output as the log has room for, and answers how many bytes that was. */
  append(stream: Stream, bytes: Uint8Array): number {
    const kept = bytes.subarray(0, this.#remainingBytes(stream));
    if (kept.length === 0) return 0;
    for (let at = 0; at < kept.length; at += ROW_BYTES)
      this.#place(stream, kept.subarray(at, at + ROW_BYTES));
    return kept.length;
  }

  #place(stream: Stream, bytes: Uint8Array): void {
    const last = this.#pending.at(-1);
    // Small pieces are joined into a row; copying a large piece would cost more than a row of its own.
    if (last?.stream === stream && last.bytes.length + bytes.length <= JOINED_BYTES)
      last.bytes = joined([last.bytes, bytes]);
    else this.#pending.push({ stream, bytes, seq: this.#rows++, start: this.bytes });
    this.#streamBytes[stream] += bytes.length;
    this.#pendingBytes += bytes.length;
  }

  /** Writes what is in memory to rows. Synchronous, so that the caller's own writes are in the same transaction. */
  flush(): void {
    if (this.#leaving && !this.#leaving.isFlushed) {
      this.#leaving.isFlushed = true;
      for (const piece of this.#leaving.pieces) this.#insert(piece, piece.bytes, null, null);
    }
    for (const piece of this.#pending) this.#insert(piece, piece.bytes, null, null);
    this.#unshipped += this.#pendingBytes;
    this.#pending = [];
    this.#pendingBytes = 0;
  }

  #insert(piece: PlacedPiece, data: Uint8Array | null, object: number | null, at: number | null): void {
    this.#sql.exec(
      "INSERT OR REPLACE INTO log (run, seq, stream, start, length, object, object_start, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
      this.#runID,
      piece.seq,
      STREAMS.indexOf(piece.stream),
      piece.start,
      piece.bytes.length,
      object,
      at,
      data,
    );
  }

  /**
   * Moves up to one object of a long log to R2. What R2 refuses waits for the next call. Only one call at a time.
   * @param shipped is called in the transaction that records where the object is, with whether its pieces are new to SQLite
   * @throws errors of R2
   */
  async moveToStore(store: LogStore, shipped: (isNew: boolean) => void): Promise<void> {
    if (!this.exceedsSQLite) return;
    if (this.#unshipped > 0 && this.#pendingBytes < OBJECT_BYTES) await this.#shipRows(store, shipped);
    else if (this.#pendingBytes > 0) await this.#shipPending(store, shipped);
  }

  async #shipRows(store: LogStore, shipped: (isNew: boolean) => void): Promise<void> {
    const rows = this.#sql
      .exec<Row>("SELECT * FROM log WHERE run = ? AND object IS NULL ORDER BY seq LIMIT 64", this.#runID)
      .toArray();
    const parts: Uint8Array[] = [];
    let size = 0;
    for (const row of rows) {
      if (size >= OBJECT_BYTES) break;
      parts.push(new Uint8Array(row.data ?? new ArrayBuffer(0)));
      size += row.length;
    }
    const object = await this.#put(store, parts);
    let at = 0;
    for (const { seq, length } of rows.slice(0, parts.length)) {
      this.#sql.exec(
        "UPDATE log SET object = ?, object_start = ?, data = NULL WHERE run = ? AND seq = ?",
        object,
        at,
        this.#runID,
        seq,
      );
      at += length;
    }
    this.#unshipped -= size;
    shipped(false);
  }

  async #shipPending(store: LogStore, shipped: (isNew: boolean) => void): Promise<void> {
    const leaving: PiecesInTransit = { pieces: this.#pending, bytes: this.#pendingBytes, isFlushed: false };
    this.#leaving = leaving;
    this.#pending = [];
    this.#pendingBytes = 0;
    let isThere = false;
    try {
      const object = await this.#put(
        store,
        leaving.pieces.map(({ bytes }) => bytes),
      );
      let at = 0;
      for (const piece of leaving.pieces) {
        this.#insert(piece, null, object, at);
        at += piece.bytes.length;
      }
      isThere = true;
      shipped(!leaving.isFlushed);
    } finally {
      this.#leaving = undefined;
      if (!isThere && leaving.isFlushed) this.#unshipped += leaving.bytes;
      else if (!isThere) {
        this.#pending = [...leaving.pieces, ...this.#pending];
        this.#pendingBytes += leaving.bytes;
      }
    }
  }

  async #put({ bucket, prefix }: LogStore, parts: Uint8Array[]): Promise<number> {
    const size = parts.reduce((sum, part) => sum + part.length, 0);
    const found = spare.pop();
    const buffer = found && found.length >= size ? found : new Uint8Array(Math.max(size, SPARE_BYTES));
    let at = 0;
    for (const part of parts) {
      buffer.set(part, at);
      at += part.length;
    }
    await bucket.put(objectKey(prefix, this.#objects), buffer.subarray(0, size));
    if (spare.length < MAX_SPARE) spare.push(buffer);
    return this.#objects++;
  }
}

/** The pieces of a flushed log from `cursor` on, at most `maxBytes` together. */
export async function readLog(
  sql: SqlStorage,
  runID: string,
  { bucket, prefix }: LogStore,
  cursor: number,
  maxBytes: number,
): Promise<LogPiece[]> {
  const rows = sql
    .exec<Row>(
      "SELECT * FROM log WHERE run = ? AND start + length > ? AND start < ? ORDER BY seq",
      runID,
      cursor,
      cursor + maxBytes,
    )
    .toArray();
  const parts = rows.map((row) => {
    const from = Math.max(0, cursor - row.start);
    const length = Math.min(row.length, cursor + maxBytes - row.start) - from;
    return { row, from, length, at: (row.object_start ?? 0) + from };
  });
  // Rows can be small and many, so everything that is needed of one object is read at once.
  const objects = Map.groupBy(
    parts.filter(({ row }) => !row.data),
    ({ row }) => row.object ?? 0,
  );
  const read = new Map<number, { offset: number; bytes: Uint8Array }>();
  for (const [number, [first, ...rest]] of objects) {
    if (!first) continue;
    const last = rest.at(-1) ?? first;
    const range = { offset: first.at, length: last.at + last.length - first.at };
    const object = await bucket.get(objectKey(prefix, number), range).catch((error) => {
      throw logUnreadable(runID, error);
    });
    if (!object) throw new Error(`object ${number} of the log of ${runID} is missing`);
    read.set(number, { offset: first.at, bytes: await object.bytes() });
  }
  return parts.map(({ row, from, length, at }) => {
    const stream = STREAMS[row.stream] ?? "stdout";
    if (row.data) return { stream, bytes: new Uint8Array(row.data, from, length) };
    const { offset, bytes } = read.get(row.object ?? 0) ?? { offset: at, bytes: new Uint8Array(0) };
    return { stream, bytes: bytes.subarray(at - offset, at - offset + length) };
  });
}

/** Removes logs of runs, rows and objects. */
export async function deleteLog(sql: SqlStorage, runID: string, { bucket, prefix }: LogStore): Promise<void> {
  const { objects } = sql
    .exec<{ objects: number }>("SELECT coalesce(max(object) + 1, 0) AS objects FROM log WHERE run = ?", runID)
    .one();
  const keys = Array.from({ length: objects }, (_, index) => objectKey(prefix, index));
  await bucket.delete(keys);
  sql.exec("DELETE FROM log WHERE run = ?", runID);
}

function objectKey(prefix: string, object: number): string {
  return `${prefix}log/${String(object).padStart(6, "0")}`;
}
