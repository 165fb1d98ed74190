/**
 * The log of one run: both output streams in the order of arrival. New output is collected in memory. When it fills an object,
 * the object goes to R2, and an SQLite row records where it is. The next flush writes the rest to rows. The rows of a long log
 * later move to R2 together, and a short log stays in SQLite. A cursor is a byte offset into the log, so it stays valid when
 * bytes move.
 */
import type { ObjectStore } from "../storage/object-store.ts";
import { JOINED_BYTES, addPart, joinBytes } from "../shared/text.ts";
import { waitAtMost } from "../shared/timers.ts";
import { LimitedQueue } from "../shared/queue.ts";
import { STREAMS, type Stream } from "../../container/sandboxd/protocol.ts";
import { type LogPiece } from "./run-types.ts";
import { logUnreadable } from "./texts.ts";

/** The most bytes of a row: SQLite values in a Durable Object are limited to 2 MB. */
const ROW_BYTES = 512 * 1024;

/** With this many unsaved pieces, a further piece joins the last one of its stream, because each takes memory and a row. */
const MAX_PENDING = 256;

/**
 * The size of an R2 object in bytes; an object may exceed it by one piece, and by more after a failure of R2. An actor has 128 MB
 * for everything, and holds two objects: one being filled and one being sent.
 */
const OBJECT_BYTES = 2 * 1024 * 1024;

/** How long a write to R2 may take. After that, the output is written again under another number. */
const PUT_MS = 60_000;

/** The most objects that an actor writes to R2 at once, and the most unconfirmed late ones: each keeps up to 4 MiB in memory. */
const WRITES_AT_ONCE = 4;
const MAX_LATE = 8;

/** The most rows that move to one object: reading them takes memory. */
const OBJECT_ROWS = 4096;

/** A log up to this size stays in SQLite; a longer one goes to R2 completely. */
export const SQLITE_LOG_BYTES = 64 * 1024;

/** Bytes of one stream with their position in the log. */
interface PlacedPiece {
  stream: Stream;
  seq: number;
  start: number;
  length: number;
  parts: Uint8Array[];
}

/** Pieces on their way from memory to R2. */
interface PiecesInTransit {
  pieces: PlacedPiece[];
  bytes: number;
  /** Whether a flush has meanwhile written the pieces to rows. */
  isFlushed: boolean;
}

/** The R2 bucket, and a run's place in it. */
export interface RunObjects {
  bucket: ObjectStore;
  /** `<principal hash>/<run id>/`: the prefix of a run's object keys. */
  prefix(runID: string): string;
}

/** The run of a log, with the totals of an earlier actor. */
interface LoggedRun {
  id: string;
  logBytes: number;
  output: Record<Stream, { readonly bytes: number }>;
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

/** The writes of all logs of an actor to R2. */
export class LogWrites {
  readonly #queue = new LimitedQueue(WRITES_AT_ONCE);
  #late = 0;

  /** Does work that writes an object; nothing if too many writes are late. */
  async run(work: () => Promise<void>): Promise<void> {
    await this.#queue.run(async () => {
      if (this.#late < MAX_LATE) await work();
    });
  }

  countLate(written: Promise<void>): void {
    this.#late++;
    void written.catch(() => undefined).then(() => this.#late--);
  }
}

/** Writes a run's log. Each running run has one, in its actor. */
export class LogWriter {
  readonly #sql: SqlStorage;
  readonly #store: RunObjects;
  readonly #writes: LogWrites;
  readonly #runID: string;
  /** The log's limit in bytes. Once it is 0, nothing more is added. */
  readonly #cap: () => number;
  #isClosed = false;
  #bytes: number;
  /** The bytes of each stream, after a restart with those that the log does not have. They only limit the streams' shares. */
  readonly #streamBytes: Record<Stream, number>;
  #pending: PlacedPiece[] = [];
  #pendingBytes = 0;
  #leaving: PiecesInTransit | undefined;
  /** The number of the next piece. Pieces that go to R2 together share a row, so there may be fewer rows than pieces. */
  #seq: number;
  /** Whether the next two fields include the rows of an earlier actor. */
  #isCounted: boolean;
  #objects = 0;
  /** The numbers of objects that R2 may still store, although their writes took too long. Their output is elsewhere. */
  readonly #late = new Set<number>();
  /** Bytes that are in rows, but in no object yet. */
  #unshipped = 0;

  /** Continues after the rows of an earlier actor. */
  constructor(
    sql: SqlStorage,
    store: RunObjects,
    writes: LogWrites,
    { id, logBytes, output }: LoggedRun,
    cap: () => number,
  ) {
    this.#sql = sql;
    this.#store = store;
    this.#writes = writes;
    this.#runID = id;
    this.#cap = cap;
    this.#bytes = logBytes;
    this.#streamBytes = { stdout: output.stdout.bytes, stderr: output.stderr.bytes };
    this.#isCounted = logBytes === 0;
    this.#seq = this.#isCounted ? 0 : this.#nextSeq();
  }

  #nextSeq(): number {
    const query = "SELECT coalesce(max(seq) + 1, 0) AS seq FROM log WHERE run = ?";
    return this.#sql.exec<{ seq: number }>(query, this.#runID).one().seq;
  }

  /** Counts what an earlier actor stored. Reads all rows, so it waits for the first move to R2. */
  #count(): void {
    this.#isCounted = true;
    const { objects, unshipped } = this.#sql
      .exec<{ objects: number; unshipped: number }>(
        `SELECT coalesce(max(object) + 1, 0) AS objects, coalesce(sum(length) FILTER (WHERE object IS NULL), 0) AS unshipped
         FROM log WHERE run = ?`,
        this.#runID,
      )
      .one();
    this.#objects = objects;
    this.#unshipped = unshipped;
  }

  get bytes(): number {
    return this.#bytes;
  }

  hasRoom(stream: Stream): boolean {
    return this.#remainingBytes(stream) > 0;
  }

  /** How many bytes of a stream may still be added. Each stream has a share that the other stream cannot use up. */
  #remainingBytes(stream: Stream): number {
    const cap = this.#isClosed ? 0 : this.#cap();
    // A log whose limit was 0 stays closed, so that it has no gaps.
    this.#isClosed = cap === 0;
    return Math.max(0, cap - this.bytes, Math.floor(cap / 4) - this.#streamBytes[stream]);
  }

  get exceedsSQLite(): boolean {
    return this.bytes > SQLITE_LOG_BYTES;
  }

  /** Bytes that must go to R2. */
  get waitingBytes(): number {
    return this.exceedsSQLite ? this.#pendingBytes + (this.#leaving?.bytes ?? 0) + this.#unshipped : 0;
  }

  get hasFullObject(): boolean {
    return this.#pendingBytes >= OBJECT_BYTES || this.#unshipped >= OBJECT_BYTES;
  }

  /** Whether too much waits in memory because R2 fails. */
  get isOverdue(): boolean {
    return this.#pendingBytes >= 2 * OBJECT_BYTES;
  }

  /** Returns how many bytes the log had room for. */
  append(stream: Stream, bytes: Uint8Array): number {
    const kept = bytes.subarray(0, this.#remainingBytes(stream));
    if (kept.length === 0) return 0;
    for (let at = 0; at < kept.length; at += ROW_BYTES)
      this.#addToPending(stream, kept.subarray(at, at + ROW_BYTES));
    return kept.length;
  }

  #addToPending(stream: Stream, bytes: Uint8Array): void {
    const isCrowded = this.#pending.length >= MAX_PENDING;
    const index = this.#pending.findLastIndex((piece) => piece.stream === stream);
    const isLast = index === this.#pending.length - 1;
    const last = isLast || isCrowded ? this.#pending[index] : undefined;
    if (last && last.length + bytes.length <= (isLast ? ROW_BYTES : JOINED_BYTES)) {
      addPart(last.parts, bytes);
      last.length += bytes.length;
      for (const later of this.#pending.slice(index + 1)) later.start += bytes.length;
    } else {
      const { length } = bytes;
      this.#pending.push({ stream, seq: this.#seq++, start: this.bytes, length, parts: [bytes] });
    }
    this.#bytes += bytes.length;
    this.#streamBytes[stream] += bytes.length;
    this.#pendingBytes += bytes.length;
  }

  /** Writes pending output to rows. Synchronous, so that the caller's writes are in the same transaction. */
  flush(): void {
    if (this.#leaving && !this.#leaving.isFlushed) {
      this.#leaving.isFlushed = true;
      for (const piece of this.#leaving.pieces) this.#insert(piece, joinBytes(piece.parts), null, null);
    }
    for (const piece of this.#pending) this.#insert(piece, joinBytes(piece.parts), null, null);
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
      piece.length,
      object,
      at,
      data,
    );
  }

  /**
   * Moves at most one object of a long log to R2. If R2 refuses it, the next call tries again. Calls must not overlap.
   * @param onBegin called when the object's content is fixed. Returns a function to call in the transaction that records the object.
   * Its argument says whether the pieces are new to SQLite
   * @throws errors of R2
   */
  async moveToStore(onBegin: () => (isNew: boolean) => void): Promise<void> {
    if (!this.exceedsSQLite) return;
    await this.#writes.run(async () => {
      if (!this.#isCounted) this.#count();
      if (this.#unshipped > 0 && this.#pendingBytes < OBJECT_BYTES) await this.#shipRows(onBegin());
      else if (this.#pendingBytes > 0) await this.#shipPending(onBegin());
    });
  }

  async #shipRows(onShipped: (isNew: boolean) => void): Promise<void> {
    const rows = this.#sql.exec<Row>(
      "SELECT * FROM log WHERE run = ? AND object IS NULL ORDER BY seq LIMIT ?",
      this.#runID,
      OBJECT_ROWS,
    );
    const pieces: PlacedPiece[] = [];
    let size = 0;
    for (const { stream, seq, start, length, data } of rows) {
      const parts = [new Uint8Array(data ?? new ArrayBuffer(0))];
      pieces.push({ stream: STREAMS[stream] ?? "stdout", seq, start, length, parts });
      size += length;
      if (size >= OBJECT_BYTES) break;
    }
    await this.#ship(pieces);
    this.#unshipped -= size;
    onShipped(false);
  }

  async #shipPending(onShipped: (isNew: boolean) => void): Promise<void> {
    const leaving: PiecesInTransit = { pieces: this.#pending, bytes: this.#pendingBytes, isFlushed: false };
    this.#leaving = leaving;
    this.#pending = [];
    this.#pendingBytes = 0;
    let isStored = false;
    try {
      await this.#ship(leaving.pieces);
      isStored = true;
      onShipped(!leaving.isFlushed);
    } finally {
      this.#leaving = undefined;
      if (!isStored && leaving.isFlushed) this.#unshipped += leaving.bytes;
      else if (!isStored) {
        this.#pending = [...leaving.pieces, ...this.#pending];
        this.#pendingBytes += leaving.bytes;
      }
    }
  }

  /** Puts the pieces into one object. Replaces their rows with one row for each piece from `joinAdjacent`. */
  async #ship(pieces: readonly PlacedPiece[]): Promise<void> {
    const object = await this.#put(pieces.flatMap(({ parts }) => parts));
    this.#sql.exec(
      "DELETE FROM log WHERE run = ? AND seq BETWEEN ? AND ? AND object IS NULL",
      this.#runID,
      pieces[0]?.seq ?? 0,
      pieces.at(-1)?.seq ?? -1,
    );
    let at = 0;
    for (const piece of joinAdjacent(pieces)) {
      this.#insert(piece, null, object, at);
      at += piece.length;
    }
  }

  async #put(parts: Uint8Array[]): Promise<number> {
    let object = this.#objects;
    while (this.#late.has(object)) object++;
    const key = objectKey(this.#store, this.#runID, object);
    const written = this.#store.bucket.put(key, joinBytes(parts));
    const isWritten = await waitAtMost(
      PUT_MS,
      written.then(() => true),
    );
    if (!isWritten) {
      void this.#deleteLate(object, key, written);
      throw new Error(`R2 did not store object ${object} of the log of ${this.#runID} within ${PUT_MS} ms`);
    }
    this.#objects = object + 1;
    return object;
  }

  /** Deletes an object when R2 has stored it too late. `deleteLog` deletes it too if this actor ends before. */
  async #deleteLate(object: number, key: string, written: Promise<void>): Promise<void> {
    this.#late.add(object);
    this.#writes.countLate(written);
    try {
      await written;
      await this.#store.bucket.delete([key]);
    } catch {
      // R2 has not stored the object, or the next object with this number replaces it.
    }
    this.#late.delete(object);
  }
}

/** Joins pieces of one stream that are adjacent in the log: no other piece is between them, in this list or in R2. */
function joinAdjacent(pieces: readonly PlacedPiece[]): PlacedPiece[] {
  const joinedPieces: PlacedPiece[] = [];
  for (const piece of pieces) {
    const last = joinedPieces.at(-1);
    if (last?.stream === piece.stream && last.start + last.length === piece.start)
      last.length += piece.length;
    else joinedPieces.push({ ...piece });
  }
  return joinedPieces;
}

/** Pieces of a flushed log from `cursor` on, at most `maxBytes` in total. */
export async function readLog(
  sql: SqlStorage,
  runID: string,
  store: RunObjects,
  cursor: number,
  maxBytes: number,
): Promise<LogPiece[]> {
  const rows = sql
    .exec<Row>(
      "SELECT * FROM log WHERE run = ? AND seq BETWEEN ? AND ? AND start + length > ? ORDER BY seq",
      runID,
      lastRowBefore(sql, runID, cursor + 1),
      lastRowBefore(sql, runID, cursor + maxBytes),
      cursor,
    )
    .toArray();
  const parts = rows.map((row) => {
    const from = Math.max(0, cursor - row.start);
    const length = Math.min(row.length, cursor + maxBytes - row.start) - from;
    return { row, from, length, at: (row.object_start ?? 0) + from };
  });
  // There may be many small rows, so each object is read once for all of them.
  const objects = Map.groupBy(
    parts.filter(({ row }) => !row.data),
    ({ row }) => row.object ?? 0,
  );
  const read = new Map<number, { offset: number; bytes: Uint8Array }>();
  for (const [number, [first, ...rest]] of objects) {
    if (!first) continue;
    const last = rest.at(-1) ?? first;
    const range = { offset: first.at, length: last.at + last.length - first.at };
    const object = await store.bucket.get(objectKey(store, runID, number), range).catch((error) => {
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

/** The number of the last row that begins before an offset, or -1. A binary search, because a log can have many rows. */
function lastRowBefore(sql: SqlStorage, runID: string, offset: number): number {
  const rowUpTo = (seq: number) =>
    sql
      .exec<{ seq: number; start: number }>(
        "SELECT seq, start FROM log WHERE run = ? AND seq <= ? ORDER BY seq DESC LIMIT 1",
        runID,
        seq,
      )
      .toArray()[0];
  let found = -1;
  for (let low = 0, high = rowUpTo(Number.MAX_SAFE_INTEGER)?.seq ?? -1; low <= high;) {
    const middle = Math.floor((low + high) / 2);
    const row = rowUpTo(middle);
    if (row === undefined || row.start < offset) {
      found = row?.seq ?? found;
      low = middle + 1;
    } else high = row.seq - 1;
  }
  return found;
}

/** Deletes the log of a run that is about to be deleted. */
export async function deleteLog(sql: SqlStorage, runID: string, store: RunObjects): Promise<void> {
  // An actor may have ended before it recorded the last object of a long log, or deleted objects that R2 stored too late.
  const { objects } = sql
    .exec<{ objects: number }>(
      "SELECT coalesce(max(object) + 1, 0) + iif(coalesce(sum(length), 0) > ?, ?, 0) AS objects FROM log WHERE run = ?",
      SQLITE_LOG_BYTES,
      1 + MAX_LATE,
      runID,
    )
    .one();
  const keys = Array.from({ length: objects }, (_, index) => objectKey(store, runID, index));
  await store.bucket.delete(keys);
  sql.exec("DELETE FROM log WHERE run = ?", runID);
}

function objectKey({ prefix }: RunObjects, runID: string, object: number): string {
  return `${prefix(runID)}log/${String(object).padStart(6, "0")}`;
}
