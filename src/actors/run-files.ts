/** Downloads of run outputs: logs, and artifacts of tasks. They outlive the container. */
import { joined } from "../runs/head-and-tail.ts";
import type { Runs } from "../runs/runs.ts";
import type { RunObjects } from "../runs/run-log.ts";
import type { RunView } from "../runs/run-types.ts";
import type { StoredObject } from "../storage/object-store.ts";
import { ARTIFACTS, LOG_NAME } from "../shared/resource-uri.ts";
import { findArtifact } from "../tasks/collect.ts";
import { noSuchFile } from "./texts.ts";

/** Bytes of a log read at once. */
const PAGE_BYTES = 1024 * 1024;

export interface RunFileStat {
  /** Bytes; for a running run, the log's current size. */
  size: number;
  /** When the run ended, or started if it still runs. Milliseconds since the epoch. */
  modified: number;
}

export interface ArtifactRange {
  /** Bytes of the whole artifact. */
  size: number;
  bytes: Uint8Array;
}

export class RunFiles {
  readonly #runs: Runs;
  readonly #objects: RunObjects;

  constructor(runs: Runs, objects: RunObjects) {
    this.#runs = runs;
    this.#objects = objects;
  }

  /** @param name `LOG_NAME`, or a path behind `ARTIFACTS`. @throws {ToolError} `not_found` */
  async stat(id: string, name: string): Promise<RunFileStat> {
    const run = await this.#runs.result(id, 0);
    const size = name === LOG_NAME ? run.logBytes : this.#artifact(run, name).size;
    return { size, modified: run.endedAt ?? run.startedAt };
  }

  /** A range as a stream, shorter if the content ends first. */
  async open(id: string, name: string, offset: number, length: number): Promise<ReadableStream<Uint8Array>> {
    if (name === LOG_NAME) return this.#log(id, offset, offset + length);
    const { key } = this.#artifact(await this.#runs.result(id, 0), name);
    return (await this.#object(key, offset, length)).body;
  }

  /** A range of an artifact, at most `maxBytes` long. @throws {ToolError} `not_found` */
  async artifact(id: string, path: string, offset: number, maxBytes: number): Promise<ArtifactRange> {
    const { key, size } = findArtifact(this.#objects.prefix(id), await this.#runs.result(id, 0), path);
    const length = Math.min(maxBytes, size - offset);
    if (length <= 0) return { size, bytes: new Uint8Array(0) };
    return { size, bytes: await (await this.#object(key, offset, length)).bytes() };
  }

  async #object(key: string, offset: number, length: number): Promise<StoredObject> {
    const object = await this.#objects.bucket.get(key, { offset, length });
    if (!object) throw new Error(`the object ${key} is missing`);
    return object;
  }

  #log(id: string, start: number, end: number): ReadableStream<Uint8Array> {
    let at = start;
    return new ReadableStream({
      type: "bytes",
      pull: async (controller) => {
        const { pieces, next } = await this.#runs.log(id, at, Math.min(PAGE_BYTES, end - at));
        // Pieces may share a buffer, which the stream would transfer with the first of them.
        const bytes = Uint8Array.from(joined(pieces.map((piece) => piece.bytes)));
        const isEnd = next >= end || next === at;
        at = next;
        if (bytes.length > 0) controller.enqueue(bytes);
        if (!isEnd) return;
        controller.close();
        controller.byobRequest?.respond(0);
      },
    });
  }

  #artifact(run: RunView, name: string): { key: string; size: number } {
    if (name.startsWith(ARTIFACTS))
      return findArtifact(this.#objects.prefix(run.id), run, name.slice(ARTIFACTS.length));
    throw noSuchFile(run.id, name);
  }
}
