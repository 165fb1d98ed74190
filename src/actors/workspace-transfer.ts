/**
 * Moves saved states between sandboxd and R2. The account is asked before anything is stored and told what was, so that it
 * counts all that there is.
 */
import type { NamedFiles, Plan } from "../../container/sandboxd/snapshots/calls.ts";
import type { Snapshots, Target } from "../container/snapshots.ts";
import { ToolError, unwrap } from "../shared/errors.ts";
import type { ObjectStore } from "../storage/object-store.ts";
import type { Account } from "./account.ts";
import {
  type Archive,
  type LeftOut,
  type Pack,
  type Snapshot,
  manifestPrefix,
  packPrefix,
} from "./snapshot-registry.ts";
import { StorageError, readObjects, writeObjects } from "./workspace-objects.ts";

/** Bytes that the manifest of a save may have. */
const MANIFEST_BYTES = 256 * 1024 * 1024;

/** How long it is remembered that there was no room for a save, milliseconds. */
const NO_ROOM_MS = 3_600_000;

/** What a container came from or was last saved as; no snapshot where the sandbox had none. */
export interface Origin {
  snapshot?: string;
  /** When that was saved, milliseconds since the epoch. */
  savedAt?: number;
  packs: Pack[];
}

/** A save that sandboxd has planned. */
export interface Save {
  id: string;
  origin: Origin;
  plan: Plan;
  /** What it becomes, and its bytes at most; without, the state of the sandbox. */
  archive?: (Archive & { maxBytes: number }) | undefined;
}

/** What was stored: all packs that it needs, and what is left out of it. */
export interface Stored {
  packs: Pack[];
  left: Plan["left"];
}

export interface TransferHost {
  snapshots: Pick<Snapshots, keyof Snapshots>;
  bucket: ObjectStore;
  /** The prefix of the principal's workspaces in the bucket. */
  prefix(): string;
  account(): Pick<DurableObjectStub<Account>, "beginSave" | "commitSave" | "abandonSave" | "workspacesFull">;
  /** The sandbox's name. */
  sandbox(): string;
  background(work: Promise<unknown>): void;
}

export class WorkspaceTransfer {
  readonly #host: TransferHost;
  /** Of the last save for which there was no room: its bytes of files, and how many it might have added, and when that was. */
  #lastRefusal: { bytes: number; room: number; at: number } | undefined;

  constructor(host: TransferHost) {
    this.#host = host;
  }

  /**
   * @param target the task that goes on with the conversation, where the state is one
   * @returns what of it was not restored, because the image is another
   * @throws errors of sandboxd, and of R2
   */
  async restore(state: Snapshot, signal: AbortSignal, target?: Target): Promise<NamedFiles | undefined> {
    const { bucket, snapshots } = this.#host;
    const prefix = this.#host.prefix();
    const manifest = [{ prefix: `${prefix}${manifestPrefix(state.id)}`, from: 0, to: state.manifestBytes }];
    const { reads, dropped } = await streamed(
      state.manifestBytes,
      (...into) => readObjects(bucket, manifest, ...into),
      (body) => snapshots.call("restore", { id: state.id, ...target, body }, signal),
    );
    const sizes = new Map(state.packs.map(({ id, bytes }) => [id, bytes]));
    let total = 0;
    for (const { pack, from, to } of reads) {
      if (!(from < to && to <= (sizes.get(pack) ?? 0)))
        throw new Error(`${state.id} asks for what it has not`);
      total += to - from;
    }
    if (total > state.packs.reduce((sum, { bytes }) => sum + bytes, 0))
      throw new Error(`${state.id} asks for more than it has`);
    const ranges = reads.map(({ pack, from, to }) => ({
      prefix: `${prefix}${packPrefix(pack)}`,
      from,
      to,
    }));
    await streamed(
      total,
      (...into) => readObjects(bucket, ranges, ...into),
      (body) => snapshots.call("data", { id: state.id, body }, signal),
    );
    return dropped;
  }

  /**
   * Stores what sandboxd has planned, and has the account take it.
   * @param committing called when all of it is stored, before the account is told
   * @throws {ToolError}, and errors of sandboxd and of R2
   */
  async store(save: Save, signal: AbortSignal, committing = () => {}): Promise<Stored> {
    const { id, origin, plan, archive } = save;
    const account = this.#host.account();
    const sandbox = this.#host.sandbox();
    const base = origin.snapshot;
    const notEnough = archive ? undefined : this.#notEnoughFor(plan);
    const room = unwrap(await account.beginSave(sandbox, id, base, archive !== undefined, notEnough));
    let isWriting = false;
    let isTaken = false;
    try {
      const { packBytes, left, ...uploaded } = await this.#upload(save, room, signal);
      signal.throwIfAborted();
      committing();
      const state = { id, sandbox, base, ...uploaded, left: leftOut(left) };
      unwrap(await account.commitSave({ ...state, archive: archive && archiveOf(archive) }, packBytes));
      isTaken = true;
      return { packs: uploaded.packs, left };
    } catch (error) {
      isWriting = error instanceof StorageError && error.isUnderWay;
      if (!archive && error instanceof ToolError && error.code === "quota_exceeded")
        this.#lastRefusal = { bytes: plan.bytes, room, at: Date.now() };
      throw error;
    } finally {
      // Of a save that was committed there is nothing to give up.
      if (!isTaken) this.#host.background(account.abandonSave(sandbox, id, isWriting).catch(() => undefined));
    }
  }

  /** @param room bytes that it may add to what the principal has stored */
  async #upload({ id, origin, plan, archive }: Save, room: number, signal: AbortSignal) {
    const { snapshots, bucket } = this.#host;
    const prefix = this.#host.prefix();
    const most = archive?.maxBytes ?? Infinity;
    const full = async (error: unknown) => {
      const isFull = !archive && error instanceof ToolError && error.code === "too_large";
      throw isFull ? ToolError.from(await this.#host.account().workspacesFull()) : error;
    };
    const packKey = `${prefix}${packPrefix(id)}`;
    const packed = await snapshots.call("pack", { id }, signal);
    const packBytes = await writeObjects(bucket, packKey, packed.body, Math.min(room, most)).catch(full);
    const manifestMost = Math.min(MANIFEST_BYTES, most - packBytes);
    const manifestKey = `${prefix}${manifestPrefix(id)}`;
    const manifest = await snapshots.call("manifest", { id }, signal);
    const manifestBytes = await writeObjects(bucket, manifestKey, manifest.body, manifestMost);
    const { files, bytes, unreadable, packs: needed, ...done } = await snapshots.call("done", { id }, signal);
    const own = needed.find((one) => one.id === id);
    if ((own?.length ?? 0) !== packBytes || done.manifestBytes !== manifestBytes)
      throw new Error(`the save ${id} is not as long as it says`);
    // How long an older pack is, the sandbox does not know: it says what it still needs of it.
    const sizes = new Map(origin.packs.map((pack) => [pack.id, pack.bytes]));
    const packs = needed.map(({ id: pack, length, live }) => {
      return { id: pack, bytes: sizes.get(pack) ?? length, live };
    });
    return { files, bytes, manifestBytes, packs, packBytes, left: { ...plan.left, unreadable } };
  }

  /** How many bytes are too few for a save of as much: all of it was sent before that was found. It may have become smaller meanwhile. */
  #notEnoughFor({ bytes }: Plan): number | undefined {
    const before = this.#lastRefusal;
    return before && bytes >= before.bytes && Date.now() - before.at < NO_ROOM_MS ? before.room : undefined;
  }
}

/** What the account is told of an archive. */
export function archiveOf({ run, part, expiresAt, settings }: Archive): Archive {
  return { run, part, expiresAt, settings };
}

export function leftOut({ count, bytes, largest, ...rest }: Plan["left"]): LeftOut | undefined {
  const { unreadable, special, crowded } = rest;
  if (count === 0 && !unreadable && !special && !crowded) return undefined;
  return { count, bytes, names: largest.map(({ path }) => path).slice(0, 5), unreadable, special, crowded };
}

/** Sends what `write` writes as the body of a request; the answer of that. The error that came first is thrown. */
async function streamed<T>(
  length: number,
  write: (into: WritableStream<Uint8Array>, signal: AbortSignal) => Promise<void>,
  send: (body: ReadableStream<Uint8Array>) => Promise<T>,
): Promise<T> {
  const { readable, writable } = new FixedLengthStream(length);
  const stop = new AbortController();
  const written = write(writable, stop.signal).catch((error: unknown) => ({ error }));
  const sent = await send(readable).then(
    (value) => ({ value }),
    (error: unknown) => {
      // Nobody reads the rest.
      stop.abort();
      return { error };
    },
  );
  const failure = await written;
  if (failure && failure.error instanceof StorageError) throw failure.error;
  if ("error" in sent) throw sent.error;
  if (failure) throw failure.error;
  return sent.value;
}
