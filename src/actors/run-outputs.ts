/** Reads the results and logs of runs, and the artifacts of tasks, for callers. All of these outlive the container. */
import { joinBytes } from "../shared/text.ts";
import { localID } from "../runs/id.ts";
import type { RunReading, Runs, RunToRead } from "../runs/runs.ts";
import type { RunObjects } from "../runs/run-log.ts";
import type { RunView } from "../runs/run-types.ts";
import type { StoredObject } from "../storage/object-store.ts";
import type { Config } from "../shared/config.ts";
import { ARTIFACTS, LOG_NAME } from "../shared/resource-uri.ts";
import { findArtifact, taskDetailOf } from "../tasks/collect.ts";
import type { Questions } from "../tasks/questions.ts";
import type { Activity } from "./activity.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { RestartNotice } from "./restart-notice.ts";
import { noSuchFile, tooManyWaiting } from "./texts.ts";

/** How much of a log is read at once for a download. The page of each download whose client does not read stays in memory. */
const PAGE_BYTES = 256 * 1024;

/**
 * The limit of calls that wait for runs of a sandbox, which take memory: WAITING_PER_RUN for each concurrent run, at least
 * MIN_WAITING.
 */
const WAITING_PER_RUN = 2;
const MIN_WAITING = 100;

export interface RunFileStat {
  /** Bytes; for a running run, the log's current size. */
  size: number;
  /** When the run ended, or started if it still runs. Milliseconds since the epoch. */
  modified: number;
}

export interface TaskOrigin {
  run: RunView;
  /** Whether the container of the task still runs. False if the sandbox was made for the task and ends with it. */
  isAlive: boolean;
}

interface RunOutputsHost {
  config: Pick<Config, "limits">;
  runs: Pick<Runs, "result" | "list" | "log" | "type">;
  questions: Pick<Questions, "waitForCode">;
  objects: RunObjects;
  activity: Activity;
  lifecycle: Pick<Lifecycle, "isRunning">;
  restartNotice: Pick<RestartNotice, "boot">;
}

export class RunOutputs {
  readonly #host: RunOutputsHost;
  #waiting = 0;

  constructor(host: RunOutputsHost) {
    this.#host = host;
  }

  /**
   * Waits for the run to end or, with a cursor, for output after the cursor. Returns that output too.
   * @throws {ToolError} `not_found`, and `quota_exceeded` if too many calls wait
   */
  async read({ cursor, maxBytes = 0, ...waited }: RunToRead): Promise<RunReading> {
    const { runs } = this.#host;
    const run = await this.#countIf(waited.waitMs > 0, () => this.#wait({ cursor, ...waited }));
    if (cursor === undefined) return { run };
    return { run, page: await runs.log(waited.id, cursor, maxBytes) };
  }

  /**
   * Types as `Runs.type` does. A call that waits for output counts as a call that waits for a run.
   * @throws {ToolError} `quota_exceeded` if too many calls wait; then nothing is typed
   */
  type(...input: Parameters<Runs["type"]>): ReturnType<Runs["type"]> {
    const [, , maxBytes] = input;
    return this.#countIf(maxBytes > 0, () => this.#host.runs.type(...input));
  }

  async #countIf<T>(waits: boolean, work: () => Promise<T>): Promise<T> {
    if (!waits) return work();
    const maxWaiting = Math.max(MIN_WAITING, WAITING_PER_RUN * this.#host.config.limits.concurrentRuns);
    if (this.#waiting >= maxWaiting) throw tooManyWaiting(maxWaiting);
    this.#waiting += 1;
    return work().finally(() => (this.#waiting -= 1));
  }

  async #wait({ id, waitMs, cursor, seenCode, ...watch }: Omit<RunToRead, "maxBytes">): Promise<RunView> {
    const { runs, questions } = this.#host;
    const wasWriting = seenCode !== undefined && (await questions.waitForCode(localID(id), seenCode, waitMs));
    return await runs.result(id, wasWriting ? 0 : waitMs, cursor, watch);
  }

  async taskOrigin(id: string): Promise<TaskOrigin> {
    const { runs, lifecycle, restartNotice } = this.#host;
    const run = await runs.result(id, 0);
    const detail = taskDetailOf(run);
    const isEnding = detail?.ownSandbox && detail.safe;
    const isAlive = lifecycle.isRunning && !isEnding && detail?.boot === restartNotice.boot;
    return { run, isAlive };
  }

  /** @param name `LOG_NAME`, or `ARTIFACTS` followed by a path. @throws {ToolError} `not_found` */
  async stat(id: string, name: string): Promise<RunFileStat> {
    const run = await this.#host.runs.result(id, 0);
    const size = name === LOG_NAME ? run.logBytes : this.#artifact(run, name).size;
    return { size, modified: run.endedAt ?? run.startedAt };
  }

  async open(id: string, name: string, offset: number, length: number): Promise<ReadableStream<Uint8Array>> {
    const { activity, runs } = this.#host;
    const open = async () =>
      (await this.#object(this.#artifact(await runs.result(id, 0), name).key, offset, length)).body;
    const body = name === LOG_NAME ? this.#log(id, offset, offset + length) : await open();
    return activity.trackTransfer(body, { isFromContainer: false });
  }

  /** A range of an artifact, at most `maxBytes` long. @throws {ToolError} `not_found` */
  async artifact(
    id: string,
    path: string,
    offset: number,
    maxBytes: number,
  ): Promise<{ size: number; bytes: Uint8Array }> {
    const { key, size } = findArtifact(
      this.#host.objects.prefix(id),
      await this.#host.runs.result(id, 0),
      path,
    );
    const length = Math.min(maxBytes, size - offset);
    if (length <= 0) return { size, bytes: new Uint8Array(0) };
    return { size, bytes: await (await this.#object(key, offset, length)).bytes() };
  }

  async #object(key: string, offset: number, length: number): Promise<StoredObject> {
    const object = await this.#host.objects.bucket.get(key, { offset, length });
    if (!object) throw new Error(`the object ${key} is missing`);
    return object;
  }

  #log(id: string, start: number, end: number): ReadableStream<Uint8Array> {
    const { runs } = this.#host;
    let at = start;
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
      const { pieces, next } = await runs.log(id, at, Math.min(PAGE_BYTES, end - at));
      const isEnd = next >= end || next === at;
      at = next;
      if (pieces.length > 0) controller.enqueue(joinBytes(pieces.map((piece) => piece.bytes)));
      if (isEnd) controller.close();
    };
    // Not a byte stream: workerd would pass on 4 KiB at a time, which takes five times as much of the thread.
    return new ReadableStream({ pull }, { highWaterMark: 0 });
  }

  #artifact(run: RunView, name: string): { key: string; size: number } {
    if (name.startsWith(ARTIFACTS))
      return findArtifact(this.#host.objects.prefix(run.id), run, name.slice(ARTIFACTS.length));
    throw noSuchFile(run.id, name);
  }
}
