/** Saves and restores the sandbox's state over plain HTTP: see `snapshotRequests`. One operation at a time. */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Handlers, serveOperation, bodyOf, bytesOfBody } from "../serve-operation.ts";
import type { Call } from "../operations.ts";
import { attempt, FileError } from "../file-error.ts";
import { SYSTEM, WORKSPACE } from "../directories.ts";
import { lowerPriorities, ownProcesses } from "../run-processes.ts";
import { measureWork } from "../work.ts";
import { CONVERSATION, taskDirectory } from "../shapes.ts";
import { Base, baseOfContainer, recordBase, systemOfContainer } from "./base.ts";
import { type Plan, type PlanCall, type SnapshotRequests, snapshotRequests } from "./snapshot-requests.ts";
import { NODE } from "./image-change.ts";
import { Mappings } from "./mappings.ts";
import { type Place, Restore } from "./restore.ts";
import { Save } from "./save.ts";
import { Scanner, firstNames, scanNamed } from "./scan.ts";
import { type Index, SnapshotState } from "./state.ts";

/** The root of saved files. If the sandbox uses the host's file system, sandboxd saves only the workspace. */
const ROOT = SYSTEM ?? dirname(WORKSPACE);
const ONLY = basename(WORKSPACE);
const NO_BASE = () => new Base("");

/**
 * The interval of full scans, in milliseconds. A full scan also finds files of the image that were rewritten in place, and writes
 * that leave no time (`Mappings`). It takes half a second, and the time to read the files that programs have used since the last one.
 */
const THOROUGH_MS = 120_000;
/** The most bytes of a compressed manifest. */
const MANIFEST_BYTES = 256 * 1024 * 1024;

export class Snapshots {
  readonly #state = new SnapshotState();
  readonly #scanner =
    SYSTEM === undefined ? new Scanner(ROOT, NO_BASE, ONLY) : new Scanner(ROOT, baseOfContainer);
  #resting: { base: string | undefined; work: string; plan: Plan } | undefined;
  #thoroughAt = 0;
  #save: Save | undefined;
  /** Whether the save is a task's archive. No later save is compared with an archive. */
  #isArchive = false;
  /** Whether the last save may lack files that an earlier one had. */
  #wasIncomplete = false;
  /** The restore whose content is next. */
  #begun: { restore: Restore; call: Call<SnapshotRequests["restore"]> } | undefined;
  #restoring: Promise<unknown> = Promise.resolve();
  /** Aborted when the next save or restore begins, because the actor that requested the earlier one may be gone. */
  #current = new AbortController();

  readonly #handlers: Handlers<SnapshotRequests> = {
    "GET /snapshot": async () => ({ ...this.#state.readMark(), isEmpty: isEmpty(WORKSPACE) }),
    "GET /snapshot/system": async () => ({ system: requireSystem() }),
    "POST /snapshot/priority": async () => {
      // Otherwise /proc also has the processes of the machine.
      if (SYSTEM !== undefined) lowerPriorities();
      return {};
    },
    "POST /snapshot": (_call, { json }) => this.#plan(json),
    "GET /snapshot/pack": async ({ id }, { begin }) => {
      const pack = this.#requireSave(id).pack(this.#current.signal);
      await pipeline(Readable.from(pack, { objectMode: true }), begin({}));
    },
    "GET /snapshot/manifest": async ({ id }, { begin }) => {
      const manifest = await this.#requireSave(id).manifest();
      begin({}, manifest.length).end(manifest);
    },
    "POST /snapshot/done": async ({ id }) => {
      const save = this.#requireSave(id);
      const done = await save.finish();
      if (!this.#isArchive) this.#state.keep(id, save.index);
      return done;
    },
    "POST /snapshot/commit": async ({ id }) => {
      this.#state.commit(id);
      if (this.#save?.id === id) this.#wasIncomplete = this.#save.mayLackFiles;
      this.#save = undefined;
      return {};
    },
    "PUT /snapshot/restore": (call, { request }) => this.#begin(call, request),
    "PUT /snapshot/data": (call, { request }) => this.#receive(call, request),
  };

  /** Call it before any user program runs. */
  begin(): void {
    if (SYSTEM !== undefined) recordBase(SYSTEM);
  }

  respond(request: IncomingMessage, response: ServerResponse): Promise<void> | undefined {
    return serveOperation(snapshotRequests, this.#handlers, request, response);
  }

  #requireSave(id: string): Save {
    if (this.#save?.id !== id) throw new FileError({ problem: "missing" });
    return this.#save;
  }

  /** Cancels the work of earlier requests, and resolves when none of it is running. */
  async #cancelEarlier(): Promise<AbortSignal> {
    this.#current.abort();
    const current = (this.#current = new AbortController());
    this.#save = undefined;
    this.#begun?.restore.abandon();
    this.#begun = undefined;
    await this.#restoring;
    current.signal.throwIfAborted();
    return current.signal;
  }

  /** The next save or restore waits for the end of this step, which it cancels. */
  #runRestoreStep<T>(work: Promise<T>): Promise<T> {
    this.#restoring = work.catch(() => undefined);
    return work;
  }

  async #plan(call: PlanCall): Promise<Plan> {
    const { id, base, isArchive = false, conversation, isThorough = false, isAtRest, ...options } = call;
    const resting = this.#resting;
    const work = measureWork();
    if (isAtRest && resting?.base === base && resting?.work === work) return resting.plan;
    const signal = await this.#cancelEarlier();
    const isBase = conversation === undefined && this.#state.readMark().snapshot === base;
    if (!isBase && !isArchive)
      return { state: "conflict", files: 0, bytes: 0, left: { count: 0, bytes: 0, largest: [] } };
    const before: Index = isBase ? await this.#state.readIndex() : new Map();
    const save = conversation
      ? await this.#saveOfConversation(id, conversation, options, signal)
      : await this.#saveOf({ id, isThorough, ...options }, before, signal);
    signal.throwIfAborted();
    this.#save = save;
    this.#isArchive = isArchive;
    const isUnchanged = isBase && save.summary.state === "unchanged";
    // After an incomplete save, only a settled scan reports this.
    if (isUnchanged) this.#wasIncomplete = false;
    this.#resting = isUnchanged ? { base, work, plan: save.summary } : undefined;
    return isBase ? save.summary : { ...save.summary, state: "changed" };
  }

  async #saveOfConversation(
    id: string,
    conversation: NonNullable<PlanCall["conversation"]>,
    options: Pick<PlanCall, "max" | "repack">,
    signal: AbortSignal,
  ): Promise<Save> {
    const seen = await conversationOf(conversation, signal);
    const scan = { isSettled: false, again: () => conversationOf(conversation, signal) };
    return new Save(id, homedir(), new Map(), options, seen, {}, undefined, scan);
  }

  async #saveOf({ id, ...options }: PlanCall, before: Index, signal: AbortSignal): Promise<Save> {
    const isThorough = options.isThorough === true || Date.now() - this.#thoroughAt > THOROUGH_MS;
    const mappings = await Mappings.read(ownProcesses());
    const scan = await this.#scanner.scan(signal, { isThorough });
    const changes = scan?.entries ?? [];
    if (isThorough) {
      await mappings.forgetChanged(ROOT, changes, before, signal);
      this.#thoroughAt = Date.now();
    }
    const saving = { ...options, wasIncomplete: this.#wasIncomplete };
    return new Save(id, ROOT, before, saving, changes, header(), mappings, scan);
  }

  async #begin(call: Call<SnapshotRequests["restore"]>, request: IncomingMessage) {
    const { id, task } = call;
    // A request that its actor has given up can arrive after the actor's next one, and must not cancel it. Its body is incomplete.
    const read = () => bytesOfBody(request, MANIFEST_BYTES);
    const manifest = await closeOnAbort(request, this.#current.signal, read);
    if (task === undefined && this.#isRestored(id)) return { reads: [] };
    const signal = await this.#cancelEarlier();
    const restore = await this.#runRestoreStep(this.#restoreOf(id, task, manifest));
    if (signal.aborted) restore.abandon();
    signal.throwIfAborted();
    this.#begun = { restore, call };
    return { reads: restore.reads, dropped: firstNames(restore.dropped, String) };
  }

  /**
   * A restored state must not be restored again: a late request of an actor that is gone would undo later changes.
   * @throws {FileError} `missing` if the container has another state
   */
  #isRestored(id: string): boolean {
    const { snapshot, isRestoring } = this.#state.readMark();
    if (snapshot === undefined || isRestoring) return false;
    if (snapshot !== id) throw new FileError({ problem: "missing" });
    return true;
  }

  #restoreOf(id: string, task: string | undefined, manifest: Buffer): Promise<Restore> {
    if (task !== undefined)
      return Restore.beginIn(id, emptyDirectory(join(taskDirectory(task), CONVERSATION)), manifest);
    const place: Place =
      SYSTEM === undefined
        ? { root: ROOT, base: NO_BASE(), only: ONLY }
        : { root: ROOT, base: baseOfContainer() };
    return Restore.begin(id, place, manifest, () => this.#state.setMark({ isRestoring: true }));
  }

  async #receive(data: Call<SnapshotRequests["data"]>, request: IncomingMessage): Promise<{}> {
    const { id } = data;
    const begun = this.#begun;
    if (begun?.call.id !== id || begun.call.attempt !== data.attempt) {
      if (this.#isRestored(id)) return {};
      throw new FileError({ problem: "missing" });
    }
    const { restore, call } = begun;
    const { signal } = this.#current;
    // An interrupted restore starts again.
    this.#begun = undefined;
    return await this.#runRestoreStep(
      closeOnAbort(request, signal, async () => {
        await restore.receive(bodyOf(request));
        if (signal.aborted) restore.abandon();
        signal.throwIfAborted();
        const index = await restore.finish();
        signal.throwIfAborted();
        if (call.task === undefined) {
          this.#state.keep(id, index);
          this.#state.commit(id);
          this.#wasIncomplete = false;
        }
        return {};
      }),
    );
  }
}

/** Does work with a request, which is closed if the signal aborts meanwhile. */
function closeOnAbort<T>(request: IncomingMessage, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const close = () => request.destroy();
  signal.addEventListener("abort", close);
  return work().finally(() => signal.removeEventListener("abort", close));
}

const header = () => (SYSTEM === undefined ? {} : { image: baseOfContainer().id, node: NODE });

const conversationOf = ({ below, id }: NonNullable<PlanCall["conversation"]>, signal: AbortSignal) =>
  scanNamed(homedir(), below.slice(1), id, signal);

/** @throws {FileError} `missing` without isolation, where the system is the host's */
function requireSystem(): string {
  if (SYSTEM === undefined) throw new FileError({ problem: "missing" });
  return systemOfContainer();
}

function isEmpty(path: string): boolean {
  return attempt(() => readdirSync(path).length === 0, true);
}

function emptyDirectory(path: string): string {
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path, { recursive: true });
  return path;
}
