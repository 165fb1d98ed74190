/**
 * Moves saved states and archives of tasks between sandboxd and R2. The account admits each save before it begins, and records it
 * afterwards, so that all stored bytes count.
 */
import type { NamedFiles, Plan } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import { malformedResponse } from "../container/file-operations.ts";
import { stateDamaged } from "../container/texts.ts";
import type { Conversation, Snapshots, ContinuingTask } from "../container/snapshot-client.ts";
import { ToolError, unwrap } from "../shared/errors.ts";
import { elapsedMs } from "../shared/timers.ts";
import type { ObjectStore } from "../storage/object-store.ts";
import type { ArchiveLeftOut, TaskArchive } from "../tasks/archive.ts";
import type { CheckpointSettings } from "./account-calls.ts";
import type { Account } from "./account.ts";
import {
  type Archive,
  type LeftOut,
  firstNames,
  lacksFiles,
  type Pack,
  type Snapshot,
  manifestPrefix,
  packPrefix,
} from "./saved-states.ts";
import { workspaceTooLarge } from "./texts.ts";
import { StorageError, readObjects, writeObjects } from "./workspace-objects.ts";

const MAX_MANIFEST_BYTES = 256 * 1024 * 1024;

/** How much larger than the limit for its files the new content of a save may be, because files can grow during the save. */
const GROWTH = 2;

/**
 * sandboxd is told which packs to write again, so that a save refers to at most MAX_PACKS earlier ones. The
 * account reads the packs of all saved states to know what is in use.
 */
const MAX_PACKS = 20;

/** If a state has at least MAX_PACKS packs, its next save writes all but the KEPT_PACKS largest again, as one pack. */
const KEPT_PACKS = 4;

/** How long a save that was larger than the free quota is remembered. */
const NO_ROOM_MS = 3_600_000;

/** How many bytes an archive may have in addition to the sizes of its files. */
const ADDED_BYTES = 1024 * 1024;

/** The state that a container started from or was last saved as. Without a snapshot, the container started empty. */
export interface Origin {
  snapshot?: string;
  /** Milliseconds since the epoch. */
  savedAt?: number;
  packs: Pack[];
}

export const EMPTY_ORIGIN: Origin = { packs: [] };

/** A save that sandboxd has planned. */
interface PlannedSave {
  id: string;
  origin: Origin;
  plan: Plan;
  /** The archive that the save becomes, with its byte limit; undefined for the sandbox's state. */
  archive?: (Archive & { maxBytes: number }) | undefined;
}

export interface TransferHost {
  /** How many bytes of the sandbox's files are saved at most. */
  maxBytes: number;
  snapshots: Pick<Snapshots, keyof Snapshots>;
  bucket: ObjectStore;
  prefix(): string;
  account(): DurableObjectStub<Account>;
  sandbox(): string;
  background(work: Promise<unknown>): void;
}

export class WorkspaceTransfer {
  readonly #host: TransferHost;
  /** The last save that was larger than the free quota, `room`. */
  #lastRefusal: { bytes: number; room: number; at: number } | undefined;

  constructor(host: TransferHost) {
    this.#host = host;
  }

  /**
   * Restores a state to the container.
   * @param target the task that continues a conversation, if the state is a conversation
   * @returns the files that were not restored, because the image has changed since the save
   * @throws errors of sandboxd and R2
   */
  async restore(
    state: Snapshot,
    signal: AbortSignal,
    target?: ContinuingTask,
  ): Promise<NamedFiles | undefined> {
    const { bucket, snapshots } = this.#host;
    const prefix = this.#host.prefix();
    const one = { id: state.id, attempt: crypto.randomUUID() };
    const manifest = [{ prefix: `${prefix}${manifestPrefix(state.id)}`, from: 0, to: state.manifestBytes }];
    const { reads, dropped } = await streamBody(
      state.manifestBytes,
      signal,
      (...into) => readObjects(bucket, manifest, ...into),
      (body) => snapshots.call("restore", { ...one, ...target, body }, signal),
    );
    const sizes = new Map(state.packs.map(({ id, bytes }) => [id, bytes]));
    let total = 0;
    for (const { pack, from, to } of reads) {
      if (!(from < to && to <= (sizes.get(pack) ?? 0))) throw stateDamaged();
      total += to - from;
    }
    if (total > state.packs.reduce((sum, { bytes }) => sum + bytes, 0)) throw stateDamaged();
    const ranges = reads.map(({ pack, from, to }) => ({
      prefix: `${prefix}${packPrefix(pack)}`,
      from,
      to,
    }));
    await streamBody(
      total,
      signal,
      (...into) => readObjects(bucket, ranges, ...into),
      (body) => snapshots.call("data", { ...one, body }, signal),
    );
    return dropped;
  }

  /** Stores and commits a save. @param onCommit called before the commit @throws {ToolError}, errors of sandboxd and R2 */
  async store(save: PlannedSave, signal: AbortSignal, onCommit = () => {}) {
    const { id, origin, plan, archive } = save;
    const account = this.#host.account();
    const sandbox = this.#host.sandbox();
    const base = origin.snapshot;
    const notEnough = archive ? undefined : this.#notEnoughFor(plan);
    const room = unwrap(await account.beginSave(sandbox, id, base, archive !== undefined, notEnough));
    let isWriting = false;
    let isCommitted = false;
    try {
      const { packBytes, left, isIncomplete, ...uploaded } = await this.#upload(save, room, signal);
      signal.throwIfAborted();
      onCommit();
      const state = { id, sandbox, base, ...uploaded, left: leftOut(left) };
      unwrap(await account.commitSave({ ...state, archive: archive && archiveOf(archive) }, packBytes));
      isCommitted = true;
      return { packs: uploaded.packs, left, isIncomplete };
    } catch (error) {
      isWriting = error instanceof StorageError && error.isUnderWay;
      if (!archive && error instanceof ToolError && error.code === "quota_exceeded")
        this.#lastRefusal = { bytes: plan.bytes, room, at: Date.now() };
      throw error;
    } finally {
      // A committed save must not be abandoned.
      if (!isCommitted)
        this.#host.background(account.abandonSave(sandbox, id, isWriting).catch(() => undefined));
    }
  }

  /**
   * Stores the files of a task's workspace and the agent's conversation. Returns what is left out.
   * @param origin the state that the container started from or was last saved as
   * @throws {ToolError}, and errors of R2
   */
  async keepArchive(
    { run, expiresAt, maxBytes, conversation }: TaskArchive,
    forCheckpoint: CheckpointSettings | undefined,
    origin: Origin,
    signal: AbortSignal,
  ): Promise<ArchiveLeftOut> {
    const settings = forCheckpoint && JSON.stringify(forCheckpoint);
    const files = { run, expiresAt, maxBytes, part: "workspace", settings } as const;
    const left = await this.#keepPart(files, origin, signal);
    if (conversation) {
      const part = { run, expiresAt, maxBytes, part: "conversation", conversation, isWhole: true } as const;
      try {
        await this.#keepPart(part, EMPTY_ORIGIN, signal);
      } catch (error) {
        if (!(error instanceof ToolError) || error.code !== "too_large") throw error;
        return { ...left, conversation: true };
      }
    }
    return left;
  }

  async #keepPart(
    archive: Archive & { maxBytes: number; conversation?: Conversation; isWhole?: boolean },
    origin: Origin,
    signal: AbortSignal,
  ): Promise<Plan["left"]> {
    const { snapshots } = this.#host;
    const { maxBytes, conversation, isWhole = false } = archive;
    const { snapshot: base } = origin;
    const id = crypto.randomUUID();
    // With workspace saving off, only archives follow each other, each with one more pack.
    const repack = origin.packs.length > MAX_PACKS ? packsToRepack(origin.packs) : [];
    const body = { id, base, max: maxBytes, repack, isArchive: true, conversation, isThorough: true };
    const plan = await snapshots.call("plan", { body }, signal);
    const { state, files, left } = plan;
    if (isWhole && lacksFiles(left)) throw workspaceTooLarge(left, maxBytes);
    if (conversation && files === 0) return left;
    if (state === "unchanged" && base !== undefined) {
      unwrap(await this.#host.account().archive(base, archiveOf(archive)));
      return left;
    }
    // Even if nothing can be compressed, an archive takes no more than its files and a manifest.
    const limited = { ...archive, maxBytes: maxBytes + ADDED_BYTES };
    return (await this.store({ id, origin, plan, archive: limited }, signal)).left;
  }

  /** @param room bytes that the principal may add */
  async #upload({ id, origin, plan, archive }: PlannedSave, room: number, signal: AbortSignal) {
    const { snapshots, bucket } = this.#host;
    const prefix = this.#host.prefix();
    const maxPackBytes = archive?.maxBytes ?? GROWTH * this.#host.maxBytes;
    const rethrowIfFull = async (error: unknown) => {
      const isTooLarge = error instanceof ToolError && error.code === "too_large";
      const isFull = !archive && isTooLarge && room <= maxPackBytes;
      throw isFull ? ToolError.from(await this.#host.account().workspacesFull()) : error;
    };
    const packKey = `${prefix}${packPrefix(id)}`;
    const packed = await snapshots.call("pack", { id }, signal);
    const packBytes = await writeObjects(bucket, packKey, packed.body, Math.min(room, maxPackBytes)).catch(
      rethrowIfFull,
    );
    const maxManifestBytes = Math.min(MAX_MANIFEST_BYTES, (archive?.maxBytes ?? Infinity) - packBytes);
    const manifestKey = `${prefix}${manifestPrefix(id)}`;
    const manifest = await snapshots.call("manifest", { id }, signal);
    const manifestBytes = await writeObjects(bucket, manifestKey, manifest.body, maxManifestBytes);
    const { files, bytes, packs: needed, ...done } = await snapshots.call("done", { id }, signal);
    const ownPack = needed.find((pack) => pack.id === id);
    // The sandbox does not know the size of older packs; it reports which parts it needs.
    const sizes = new Map(origin.packs.map(({ id: pack, bytes: size }) => [pack, size]));
    // The account stores no empty pack.
    if (packBytes > 0) sizes.set(id, packBytes);
    const isComplete = (ownPack?.length ?? 0) === packBytes && done.manifestBytes === manifestBytes;
    const isKnown = needed.every((pack) => sizes.has(pack.id));
    const areFew = needed.length <= MAX_PACKS + (ownPack ? 1 : 0);
    const isDistinct = areFew && new Set(needed.map((pack) => pack.id)).size === needed.length;
    if (!isComplete || !isKnown || !isDistinct) throw malformedResponse();
    const packs = needed.map(({ id: pack, live }) => ({ id: pack, bytes: sizes.get(pack) ?? 0, live }));
    const left = { ...plan.left, unreadable: done.unreadable };
    return { files, bytes, manifestBytes, packs, packBytes, left, isIncomplete: done.isIncomplete };
  }

  /** The free quota that was too small for an earlier save of at most this size, so that none is sent until more is free. */
  #notEnoughFor({ bytes }: Plan): number | undefined {
    const before = this.#lastRefusal;
    return before && bytes >= before.bytes && elapsedMs(before.at) < NO_ROOM_MS ? before.room : undefined;
  }
}

function archiveOf({ run, part, expiresAt, settings }: Archive): Archive {
  return { run, part, expiresAt, settings };
}

export function leftOut({ count, bytes, largest, ...rest }: Plan["left"]): LeftOut | undefined {
  const { unreadable, special, crowded } = rest;
  if (count === 0 && !unreadable && !special && !crowded) return undefined;
  return {
    count,
    bytes,
    names: firstNames(largest.map(({ path }) => path)),
    unreadable: namedFiles(unreadable),
    special: namedFiles(special),
    crowded: namedFiles(crowded),
  };
}

function namedFiles(files: NamedFiles | undefined): NamedFiles | undefined {
  return files && { count: files.count, names: firstNames(files.names) };
}

/**
 * Calls `send` with a stream that `write` fills. Returns the result of `send`. If both sides fail, throws the error of R2.
 * @param signal also ends `write`, because sandboxd may respond and never read the rest
 */
async function streamBody<T>(
  length: number,
  signal: AbortSignal,
  write: (into: WritableStream<Uint8Array>, signal: AbortSignal) => Promise<void>,
  send: (body: ReadableStream<Uint8Array>) => Promise<T>,
): Promise<T> {
  const { readable, writable } = new FixedLengthStream(length);
  const stop = new AbortController();
  const abort = () => stop.abort(signal.reason);
  signal.addEventListener("abort", abort);
  const written = write(writable, stop.signal)
    .catch((error: unknown) => ({ error }))
    .finally(() => signal.removeEventListener("abort", abort));
  const sent = await send(readable).then(
    (value) => ({ value }),
    (error: unknown) => {
      // Nobody reads the rest.
      stop.abort();
      return { error };
    },
  );
  const failure = await written;
  if (failure && (failure.error instanceof StorageError || failure.error instanceof ToolError))
    throw failure.error;
  if ("error" in sent) throw sent.error;
  if (failure) throw failure.error;
  return sent.value;
}

/** Packs to write again: every pack with more unused than used bytes and, if there are many packs, the smallest. */
export function packsToRepack(packs: readonly Pack[]): string[] {
  const dead = packs.filter(({ bytes, live }) => live * 2 < bytes);
  const alive = packs.filter((pack) => !dead.includes(pack)).sort((a, b) => a.live - b.live);
  const small = alive.length >= MAX_PACKS ? alive.slice(0, -KEPT_PACKS) : [];
  return [...dead, ...small].map(({ id }) => id);
}

/** A container before a set-up. */
export interface Installation {
  container: AbortSignal;
  /** A hash of the installed system. */
  system: string;
  /** Whether the container's workspace is empty and the sandbox has no state. */
  isEmpty: boolean;
  /** When the container's state was saved; milliseconds since the epoch. */
  savedAt: number | undefined;
}
