/** Saves and restores of the workspace, over plain HTTP: see `snapshotCalls` of the protocol. One is under way at a time. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { answerBy, bodyOf, bytesOfBody, jsonOf } from "../answering.ts";
import { FileError } from "../file-error.ts";
import { type Mark, type Plan, planCallSchema, snapshotCalls } from "../protocol.ts";
import { Restore } from "./restore.ts";
import { Save } from "./save.ts";
import { SnapshotState } from "./state.ts";

const ROOT = "/workspace";

/** Bytes of a manifest at most, compressed. */
const MANIFEST_BYTES = 256 * 1024 * 1024;

export class Snapshots {
  readonly #state = new SnapshotState();
  #save: Save | undefined;
  #restore: Restore | undefined;
  /** Ends the work that was begun before for an actor that may be gone. */
  #turn = new AbortController();

  /** Answers a request; undefined for one that is none of these. */
  answer(request: IncomingMessage, response: ServerResponse): Promise<void> | undefined {
    return answerBy(
      snapshotCalls,
      {
        "GET /snapshot": async (): Promise<Mark> => this.#state.mark(),
        "POST /snapshot": async () => this.#plan(planCallSchema.parse(await jsonOf(request))),
        "GET /snapshot/pack": ({ id }) => this.#sendPack(this.#known(id), response),
        "GET /snapshot/manifest": async ({ id }) => {
          const manifest = await this.#known(id).manifest();
          response.writeHead(200, { "content-length": manifest.length }).end(manifest);
        },
        "POST /snapshot/done": async ({ id }) => {
          const save = this.#known(id);
          const done = await save.done();
          this.#state.keep(id, save.index);
          return done;
        },
        "POST /snapshot/commit": async ({ id }) => {
          this.#state.commit(id);
          this.#save = undefined;
          return {};
        },
        "PUT /snapshot/restore": ({ id }) => this.#begin(id, request),
        "PUT /snapshot/data": ({ id }) => this.#receive(id, request),
      },
      request,
      response,
    );
  }

  #known(id: string): Save {
    if (this.#save?.id !== id) throw new FileError({ problem: "missing" });
    return this.#save;
  }

  /** The actor's latest wish counts: what an earlier one began is given up. */
  #next(): AbortSignal {
    this.#turn.abort();
    this.#turn = new AbortController();
    this.#save = undefined;
    this.#restore = undefined;
    return this.#turn.signal;
  }

  async #plan({ id, base, max, repack }: ReturnType<typeof planCallSchema.parse>): Promise<Plan> {
    const signal = this.#next();
    if (this.#state.mark().snapshot !== base)
      return { state: "conflict", files: 0, bytes: 0, left: { count: 0, bytes: 0, largest: [] } };
    const save = await Save.plan(id, ROOT, await this.#state.index(), { max, repack }, signal);
    signal.throwIfAborted();
    this.#save = save;
    return save.summary;
  }

  async #sendPack(save: Save, response: ServerResponse): Promise<void> {
    response.writeHead(200, { "content-type": "application/octet-stream" });
    await pipeline(Readable.from(save.pack(this.#turn.signal), { objectMode: true }), response);
  }

  async #begin(id: string, request: IncomingMessage): Promise<{ reads: Restore["reads"] }> {
    const signal = this.#next();
    const manifest = await bytesOfBody(request, MANIFEST_BYTES);
    this.#state.setMark({ isRestoring: true });
    const restore = await Restore.begin(id, ROOT, manifest);
    signal.throwIfAborted();
    this.#restore = restore;
    return { reads: restore.reads };
  }

  async #receive(id: string, request: IncomingMessage): Promise<object> {
    const restore = this.#restore;
    if (restore?.id !== id) throw new FileError({ problem: "missing" });
    // It is begun again from the start where it breaks off.
    this.#restore = undefined;
    await restore.receive(bodyOf(request));
    this.#state.keep(id, await restore.finish());
    this.#state.commit(id);
    return {};
  }
}
