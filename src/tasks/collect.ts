/** Collects a task's changes: the list of files, the diff, and the files as artifacts in R2. */
import {
  CHANGES_DIFF,
  CHANGES_LIST,
  type FoundChanges,
  taskDirectory,
} from "../../container/sandboxd/shapes.ts";
import type { FileOperations } from "../container/file-operations.ts";
import { type ErrorCode, ToolError, sandboxUnresponsive, undefinedIfFailed } from "../shared/errors.ts";
import type { RunObjects } from "../runs/run-log.ts";
import type { RunView } from "../runs/run-types.ts";
import {
  type Artifact,
  type ChangedFile,
  type Changes,
  DIFF_BYTES,
  DIFF_NAME,
  LIST_NAME,
  MAX_FILES,
  type UnkeptFiles,
  SHOWN_FILES,
  type TaskDetail,
} from "../runs/task-detail.ts";
import { isBroken } from "../shared/stream-bytes.ts";
import { decodeText } from "../shared/text.ts";
import { NOT_KEPT, noArtifact } from "./texts.ts";

/** Limits for a task's artifacts. The artifact with the whole diff counts too. */
const MAX_ARTIFACTS = 100;
const MAX_ARTIFACT_BYTES = 10 * 1024 * 1024;
const MAX_TOTAL_BYTES = 50 * 1024 * 1024;

/** How long it may take to send an artifact to the store, in milliseconds. */
const SEND_MS = 60_000;

const MAX_NAMED = 20;

/** The most bytes of the list of changed files as JSON. The run's detail, an SQLite value, may contain a path three times. */
const LISTED_BYTES = 200_000;

const TOO_MANY = NOT_KEPT.tooMany(MAX_ARTIFACTS);

const NOT_KEPT_REASONS: Record<FoundChanges["files"][number]["type"], string | undefined> = {
  file: undefined,
  link: NOT_KEPT.link,
  unnamed: NOT_KEPT.unnamed,
};

const UNREADABLE: readonly ErrorCode[] = [
  "not_found",
  "is_directory",
  "invalid_argument",
  "permission_denied",
  "file_system",
];

interface ArtifactStore {
  files: FileOperations;
  objects: RunObjects;
}

interface CollectingRun {
  id: string;
  directory: string;
  /** Gets each artifact when it is stored, so that it counts even if the collection fails later. */
  artifacts: Artifact[];
  /** Whether the run's record is complete, so that no artifact can be added. */
  isOver(): boolean;
}

export async function collect(
  store: ArtifactStore,
  task: string,
  run: CollectingRun,
): Promise<{ changes?: Changes; notKept?: UnkeptFiles }> {
  const { files: sandboxFiles } = store;
  const { directory } = run;
  const scanned = (await sandboxFiles.call("changes", { task, path: directory, limit: MAX_FILES })).changes;
  if (scanned === undefined) return { changes: undefined };
  const listed = filesThatFit(scanned.files);
  const files = listed.map(({ path, change, size }): ChangedFile => ({ path, change, size }));
  const writer = new ArtifactWriter(store, run);
  const directoryOfTask = taskDirectory(task);
  const diffPath = `${directoryOfTask}/${CHANGES_DIFF}`;
  const first = (await readPart(sandboxFiles, diffPath, 0, DIFF_BYTES)) ?? new Uint8Array(0);
  const { count: changed, diffBytes } = scanned;
  const changes = { files, count: changed, diff: decodeText(first, "end"), diffBytes };
  // Files that exceed only the number of artifacts come last, because the other reasons say more about the file.
  const [special, surplus]: [UnkeptFiles["named"], UnkeptFiles["named"]] = [[], []];
  const note = (path: string, why: string | undefined) => {
    if (why !== undefined) (why === TOO_MANY ? surplus : special).push({ path, why });
  };
  if (changes.diffBytes > 0) note(DIFF_NAME, await writer.keep(DIFF_NAME, diffPath, changes.diffBytes));
  if (changes.count > Math.min(SHOWN_FILES, files.length))
    note(LIST_NAME, await writer.keep(LIST_NAME, `${directoryOfTask}/${CHANGES_LIST}`, scanned.listBytes));
  for (const { path, change, type, size } of listed) {
    if (change === "deleted") continue;
    const from = `${directory}/${path}`;
    // Otherwise the task's file could pass for the server's, also if that one is too large to store.
    const name = path === DIFF_NAME || path === LIST_NAME ? from : path;
    note(name, NOT_KEPT_REASONS[type] ?? (await writer.keep(name, from, size)));
  }
  const named = [...special, ...surplus];
  const count = named.length + Math.max(0, changes.count - files.length);
  const notKept = count > 0 ? { count, named: named.slice(0, MAX_NAMED) } : undefined;
  return { changes, notKept };
}

function filesThatFit<File extends object>(files: readonly File[]): File[] {
  let room = LISTED_BYTES;
  return files.filter((file) => {
    room -= new TextEncoder().encode(JSON.stringify(file)).length;
    return room >= 0;
  });
}

class ArtifactWriter {
  readonly #store: ArtifactStore;
  readonly #run: CollectingRun;
  #bytes = 0;

  constructor(store: ArtifactStore, run: CollectingRun) {
    this.#store = store;
    this.#run = run;
  }

  /** Returns the reason if the file cannot be stored. */
  async keep(name: string, path: string, size: number): Promise<string | undefined> {
    const { artifacts, id } = this.#run;
    if (this.#run.isOver()) return NOT_KEPT.tooLate;
    if (size > MAX_ARTIFACT_BYTES) return NOT_KEPT.tooLarge(size, MAX_ARTIFACT_BYTES);
    if (this.#bytes + size > MAX_TOTAL_BYTES) return NOT_KEPT.noRoom(size, MAX_TOTAL_BYTES);
    if (artifacts.length >= MAX_ARTIFACTS) return TOO_MANY;
    const { bucket, prefix } = this.#store.objects;
    if (this.#run.isOver()) return NOT_KEPT.tooLate;
    const key = artifactKey(prefix(id), artifacts.length);
    // A restart of sandboxd breaks the stream. The store sometimes fails for a moment.
    const first = this.#send(key, path, size).catch((error: unknown) => {
      if (error instanceof ToolError) throw error;
      return undefined;
    });
    const bytes = (await first) ?? (await this.#send(key, path, size));
    if (bytes === undefined) return NOT_KEPT.unreadable;
    if (this.#run.isOver()) {
      await bucket.delete([key]);
      return NOT_KEPT.tooLate;
    }
    artifacts.push({ path: name, size: bytes });
    this.#bytes += bytes;
    return undefined;
  }

  /**
   * Streams the first `max` bytes of a file to the store.
   * @returns the number of bytes; undefined if the file cannot be read
   * @throws errors of the store and the sandbox
   */
  async #send(key: string, path: string, max: number): Promise<number | undefined> {
    const { files, objects } = this.#store;
    const opening = files.call("open", { path, offset: 0, limit: max });
    const opened = await undefinedIfFailed(opening, UNREADABLE);
    if (opened?.length === undefined || opened.length > max) {
      await opened?.body.cancel();
      return undefined;
    }
    const { readable, writable } = new FixedLengthStream(opened.length);
    const storeFailed = new AbortController();
    const stored = objects.bucket.put(key, readable).catch((error: unknown) => {
      // The store may fail without reading the rest.
      storeFailed.abort();
      return { error };
    });
    const late = AbortSignal.timeout(SEND_MS);
    const signal = AbortSignal.any([late, storeFailed.signal]);
    const broken = await opened.body.pipeTo(writable, { preventAbort: true, signal }).then(
      () => undefined,
      async (error: unknown) => {
        const isByStore = storeFailed.signal.aborted || (await isBroken(writable));
        await writable.abort(error).catch(() => undefined);
        return { isByStore };
      },
    );
    const failure = await stored;
    // If the file's stream has broken, the store fails too.
    if (failure && (!broken || broken.isByStore)) throw failure.error;
    if (broken && late.aborted) throw sandboxUnresponsive(SEND_MS);
    return broken ? undefined : opened.length;
  }
}

/** Undefined if the file cannot be read. */
async function readPart(files: FileOperations, path: string, offset: number, maxBytes: number) {
  return (await undefinedIfFailed(files.call("read", { path, offset, limit: maxBytes }), UNREADABLE))?.bytes;
}

export function findArtifact(prefix: string, run: RunView, path: string): { key: string; size: number } {
  const artifacts = taskDetailOf(run)?.artifacts ?? [];
  const index = artifacts.findIndex((artifact) => artifact.path === path);
  const size = artifacts[index]?.size ?? 0;
  if (index >= 0) return { key: artifactKey(prefix, index), size };
  throw noArtifact(
    run.id,
    path,
    artifacts.map((artifact) => artifact.path),
    run.state === "running",
  );
}

export function taskDetailOf({ detail }: Pick<RunView, "detail">): TaskDetail | undefined {
  return detail && "agent" in detail ? detail : undefined;
}

function artifactKey(prefix: string, index: number): string {
  return `${prefix}artifacts/${String(index).padStart(3, "0")}`;
}
