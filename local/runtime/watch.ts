import { RpcTarget } from "capnweb";
import { messageOf, sandboxError } from "./errors.ts";
import { DirectoryWatcher, type ChangeFilter, type FileChange } from "./directory-watcher.ts";
import { eventStream, type StreamEvent } from "./sse.ts";
import { now } from "./text.ts";

/** Events of the same kind on the same path within this time are one. */
const COALESCE_MS = 75;
/** Waiting events per reader; more are dropped. */
const MAX_PENDING = 1000;
/** Change state that nobody asked for this long is forgotten. */
const RETAINED_MS = 10 * 60 * 1000;

export interface WatchRequest {
  path: string;
  recursive?: boolean;
  /** Only these kinds; by default all but `attrib`. */
  events?: string[];
  /** Globs on names or paths; goes before `exclude`. */
  include?: string[];
  exclude?: string[];
}

/** One directory under watch, shared by the requests that ask for the same. */
interface Watch {
  id: string;
  watcher: DirectoryWatcher;
  /** Changes so far: the second half of a version. */
  cursor: number;
  readers: Set<(change: FileChange | { stopped: string }) => void>;
  /** Set once `checkChanges` has handed out a version. */
  retained: boolean;
  expiry: NodeJS.Timeout | undefined;
}

/** `watch` of the control API. Moves are seen as a `delete` and a `create`; otherwise as in the container. */
export class WatchAPI extends RpcTarget {
  readonly #watches = new Map<string, Watch>();
  #counter = 0;

  /** Streams `watching`, then an `event` per change. Errors: FILE_NOT_FOUND, WATCH_START_ERROR. */
  watch(request: WatchRequest): ReadableStream<Uint8Array> {
    const { watch } = this.#open(request);
    const pending = new Map<string, StreamEvent>();
    let stopped: string | undefined;
    let news = Promise.withResolvers<void>();
    const reader = (change: FileChange | { stopped: string }): void => {
      if ("stopped" in change) {
        stopped = change.stopped;
      } else {
        const key = `${change.eventType}|${change.path}`;
        if (pending.has(key) || pending.size < MAX_PENDING) {
          pending.set(key, { type: "event", ...change, timestamp: now() });
        }
      }
      news.resolve();
    };
    watch.readers.add(reader);
    clearTimeout(watch.expiry);

    const release = (): void => {
      if (!watch.readers.delete(reader)) return;
      stopped ??= "Watch stopped after last subscriber disconnected";
      news.resolve();
      this.#closeWhenUnused(request, watch);
    };
    const events = async function* (): AsyncGenerator<StreamEvent> {
      try {
        yield { type: "watching", path: request.path, watchId: watch.id };
        for (;;) {
          if (pending.size === 0 && stopped === undefined) {
            await news.promise;
            news = Promise.withResolvers<void>();
            if (stopped === undefined) await new Promise((resolve) => setTimeout(resolve, COALESCE_MS));
          }
          const batch = [...pending.values()];
          pending.clear();
          yield* batch;
          if (stopped !== undefined && pending.size === 0) break;
        }
        yield { type: "stopped", reason: stopped ?? "" };
      } finally {
        release();
      }
    };
    return eventStream(events(), { onCancel: release });
  }

  /**
   * Whether a path changed since the version of an earlier answer. Errors: FILE_NOT_FOUND, WATCH_START_ERROR,
   * VALIDATION_FAILED for a `since` that is not such a version.
   */
  checkChanges(request: WatchRequest & { since?: string }) {
    const { watch, created } = this.#open(request);
    watch.retained = true;
    this.#closeWhenUnused(request, watch);
    const answer = { success: true, version: `${watch.id}:${watch.cursor}`, timestamp: now() };
    if (request.since === undefined) return { ...answer, status: "unchanged" };

    const [, id, cursor] = /^(.+):(\d+)$/.exec(request.since) ?? [];
    if (id === undefined || (id === watch.id && Number(cursor) > watch.cursor)) {
      throw sandboxError("VALIDATION_FAILED", "since must be a version returned by checkChanges()", {
        since: request.since,
        currentVersion: answer.version,
      });
    }
    if (id !== watch.id) return { ...answer, status: "resync", reason: created ? "expired" : "restarted" };
    return { ...answer, status: Number(cursor) === watch.cursor ? "unchanged" : "changed" };
  }

  #open(request: WatchRequest): { watch: Watch; created: boolean } {
    const key = keyOf(request);
    const existing = this.#watches.get(key);
    if (existing) return { watch: existing, created: false };
    const watch: Watch = {
      id: `watch-${++this.#counter}-${Date.now()}`,
      watcher: this.#start(request),
      cursor: 0,
      readers: new Set(),
      retained: false,
      expiry: undefined,
    };
    watch.watcher.onChange = (change) => {
      watch.cursor += 1;
      for (const reader of watch.readers) reader(change);
    };
    watch.watcher.onEnd = (stopped) => {
      this.#watches.delete(key);
      clearTimeout(watch.expiry);
      for (const reader of watch.readers) reader({ stopped });
    };
    this.#watches.set(key, watch);
    return { watch, created: true };
  }

  #start(request: WatchRequest): DirectoryWatcher {
    try {
      return new DirectoryWatcher(request.path, request.recursive !== false, filterOf(request));
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") {
        throw sandboxError("FILE_NOT_FOUND", `Path does not exist: ${request.path}`, { path: request.path });
      }
      throw sandboxError("WATCH_START_ERROR", `Failed to start file watcher: ${messageOf(error)}`, {
        path: request.path,
      });
    }
  }

  #closeWhenUnused(request: WatchRequest, watch: Watch): void {
    clearTimeout(watch.expiry);
    if (watch.readers.size > 0) return;
    const close = (): void => {
      watch.watcher.close();
      if (this.#watches.get(keyOf(request)) === watch) this.#watches.delete(keyOf(request));
    };
    if (!watch.retained) close();
    else watch.expiry = setTimeout(close, RETAINED_MS).unref();
  }
}

function keyOf({ path, recursive, events, include, exclude }: WatchRequest): string {
  return JSON.stringify([path, recursive !== false, events, include, exclude]);
}

function filterOf({ events, include, exclude }: WatchRequest): ChangeFilter {
  return {
    kinds: events?.length ? new Set(events) : undefined,
    include: include?.length ? patternOf(include) : undefined,
    exclude: include?.length
      ? undefined
      : patternOf(exclude?.length ? exclude : [".git", "node_modules", ".DS_Store"]),
  };
}

/** The globs as one expression on whole path segments: `*` and `?` stay within one, `**` does not. */
function patternOf(globs: string[]): RegExp {
  const alternatives = globs.map((glob) =>
    glob
      .replace(/[.+^${}()|[\]\\]/g, "\\$&")
      .replace(/\*\*|\*|\?/g, (wildcard) => (wildcard === "**" ? ".*" : wildcard === "*" ? "[^/]*" : "[^/]")),
  );
  return new RegExp(`(^|/)(${alternatives.join("|")})(/|$)`);
}
