/** Saves and restores of the workspace, and of what was installed beside it, over plain HTTP: see `snapshotRequests`. One is under way at a time. */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { homedir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Handlers, serveOperation, bodyOf, bytesOfBody } from "../serve-operation.ts";
import { FileError } from "../file-error.ts";
import { SYSTEM, WORKSPACE } from "../directories.ts";
import { CONVERSATION, taskDirectory } from "../shapes.ts";
import { type Plan, type PlanCall, type SnapshotRequests, snapshotRequests } from "./calls.ts";
import { Restore } from "./restore.ts";
import { Save } from "./save.ts";
import { type Index, SnapshotState } from "./state.ts";
import { type FileMarks, systemID, systemNow } from "./system.ts";

/** Bytes of a manifest at most, compressed. */
const MANIFEST_BYTES = 256 * 1024 * 1024;

export class Snapshots {
  readonly #state = new SnapshotState();
  #save: Save | undefined;
  /** Whether the save is of what a task leaves, with which no later one is compared. */
  #isArchive = false;
  /** The system as it was before a set-up. */
  #system: FileMarks | undefined;
  #restore: Restore | undefined;
  /** Whether the restore is of the workspace, and not of a conversation or the system. */
  #isOfWorkspace = true;
  /** Settles when no part of a restore is under way. */
  #restoring: Promise<unknown> = Promise.resolve();
  /** Ends the work that was begun before for an actor that may be gone. */
  #turn = new AbortController();

  readonly #handlers: Handlers<SnapshotRequests> = {
    "GET /snapshot": async () => ({ ...this.#state.mark(), isEmpty: isEmpty(WORKSPACE) }),
    "GET /snapshot/system": async () => ({ system: systemID(systemRoot()) }),
    "POST /snapshot/system": async () => {
      this.#system = await systemNow(systemRoot(), new AbortController().signal);
      return {};
    },
    "POST /snapshot": (_call, { json }) => this.#plan(json),
    "GET /snapshot/pack": async ({ id }, { begin }) => {
      const pack = this.#known(id).pack(this.#turn.signal);
      await pipeline(Readable.from(pack, { objectMode: true }), begin({}));
    },
    "GET /snapshot/manifest": async ({ id }, { begin }) => {
      const manifest = await this.#known(id).manifest();
      begin({}, manifest.length).end(manifest);
    },
    "POST /snapshot/done": async ({ id }) => {
      const save = this.#known(id);
      const done = await save.done();
      if (!this.#isArchive) this.#state.keep(id, save.index);
      return done;
    },
    "POST /snapshot/commit": async ({ id }) => {
      this.#state.commit(id);
      this.#save = undefined;
      return {};
    },
    "PUT /snapshot/restore": ({ id, task, system }, { request }) =>
      this.#begin(id, task, system !== undefined, request),
    "PUT /snapshot/data": ({ id }, { request }) => this.#receive(id, request),
  };

  /** Answers a request; undefined for one that is none of these. */
  respond(request: IncomingMessage, response: ServerResponse): Promise<void> | undefined {
    return serveOperation(snapshotRequests, this.#handlers, request, response);
  }

  #known(id: string): Save {
    if (this.#save?.id !== id) throw new FileError({ problem: "missing" });
    return this.#save;
  }

  /** The actor's latest wish counts: what an earlier one began is given up. Resolves when nothing of it is under way. */
  async #next(): Promise<AbortSignal> {
    this.#turn.abort();
    const turn = (this.#turn = new AbortController());
    this.#save = undefined;
    this.#restore?.abandon();
    this.#restore = undefined;
    await this.#restoring;
    turn.signal.throwIfAborted();
    return turn.signal;
  }

  /** Does a part of a restore, which ends before another begins. @param request is cut off when another is to begin */
  #restores<T>(request: IncomingMessage, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const cut = () => request.destroy();
    signal.addEventListener("abort", cut);
    const done = work().finally(() => signal.removeEventListener("abort", cut));
    this.#restoring = done.catch(() => undefined);
    return done;
  }

  async #plan(call: PlanCall): Promise<Plan> {
    const { id, base, isArchive = false, conversation, isSystem = false, ...options } = call;
    const signal = await this.#next();
    if (isSystem && !this.#system) throw new FileError({ problem: "missing" });
    const isBase = conversation === undefined && !isSystem && this.#state.mark().snapshot === base;
    if (!isBase && !isArchive)
      return { state: "conflict", files: 0, bytes: 0, left: { count: 0, bytes: 0, largest: [] } };
    const before: Index = isBase ? await this.#state.index() : new Map();
    const root = isSystem ? systemRoot() : conversation ? homedir() : WORKSPACE;
    const system = isSystem ? this.#system : undefined;
    const save = await Save.plan(id, root, before, { ...options, conversation }, signal, system);
    signal.throwIfAborted();
    this.#save = save;
    this.#isArchive = isArchive;
    return isBase ? save.summary : { ...save.summary, state: "changed" };
  }

  /** @param task whose conversation it is; of the workspace without, or of the system */
  async #begin(
    id: string,
    task: string | undefined,
    isOfSystem: boolean,
    request: IncomingMessage,
  ): Promise<{ reads: Restore["reads"] }> {
    if (task === undefined && !isOfSystem && this.#isWhole(id)) return { reads: [] };
    const signal = await this.#next();
    return await this.#restores(request, signal, async () => {
      const manifest = await bytesOfBody(request, MANIFEST_BYTES);
      signal.throwIfAborted();
      const restore = isOfSystem
        ? await Restore.beginChanges(id, systemRoot(), manifest)
        : await this.#restoreOf(id, task, manifest);
      if (signal.aborted) restore.abandon();
      signal.throwIfAborted();
      this.#restore = restore;
      this.#isOfWorkspace = task === undefined && !isOfSystem;
      return { reads: restore.reads };
    });
  }

  /**
   * Whether the workspace has been restored. The request of an actor that is gone may come after the next one has done that, and
   * must not undo what was done there since.
   * @throws {FileError} `missing` where it has another state
   */
  #isWhole(id: string): boolean {
    const { snapshot, isRestoring } = this.#state.mark();
    if (snapshot === undefined || isRestoring) return false;
    if (snapshot !== id) throw new FileError({ problem: "missing" });
    return true;
  }

  #restoreOf(id: string, task: string | undefined, manifest: Buffer): Promise<Restore> {
    const root = task === undefined ? WORKSPACE : emptyDirectory(join(taskDirectory(task), CONVERSATION));
    return Restore.begin(id, root, manifest, () => {
      if (task === undefined) this.#state.setMark({ isRestoring: true });
    });
  }

  async #receive(id: string, request: IncomingMessage): Promise<{}> {
    const restore = this.#restore;
    if (restore?.id !== id) {
      if (this.#isWhole(id)) return {};
      throw new FileError({ problem: "missing" });
    }
    const { signal } = this.#turn;
    // It is begun again from the start where it breaks off.
    this.#restore = undefined;
    return await this.#restores(request, signal, async () => {
      await restore.receive(bodyOf(request));
      if (signal.aborted) restore.abandon();
      signal.throwIfAborted();
      const index = await restore.finish();
      signal.throwIfAborted();
      if (this.#isOfWorkspace) {
        this.#state.keep(id, index);
        this.#state.commit(id);
      }
      return {};
    });
  }
}

/** @throws {FileError} `missing` in a sandbox without isolation, whose system is the host's */
function systemRoot(): string {
  if (SYSTEM === undefined) throw new FileError({ problem: "missing" });
  return SYSTEM;
}

function isEmpty(path: string): boolean {
  try {
    return readdirSync(path).length === 0;
  } catch {
    // There is none.
    return true;
  }
}

function emptyDirectory(path: string): string {
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path, { recursive: true });
  return path;
}
