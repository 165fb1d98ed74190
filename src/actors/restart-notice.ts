/**
 * Counts container starts, and remembers how the last container ended. The processes and kernels of that container ended too. The
 * next result says this, once, and names what was restored.
 */
import type { NamedFiles } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import type { Snapshot } from "./saved-states.ts";
import { type KV, StoredValue } from "./stored-value.ts";
import { ENDINGS, lostText, restoredText } from "./texts.ts";

/**
 * The ends of a container after which part of the workspace may be missing. Either calls and runs continued after the save, or
 * the end did not wait for the save, or saves failed.
 */
const NOT_ALL_SAVED = new Set([
  "unsaved_idle",
  "unsaved_room",
  "unsaved_server",
  "unsaved_network",
  "platform",
]);

export class RestartNotice {
  readonly #count: StoredValue<number>;
  /** Why the container is being stopped; unset if its end is unplanned. */
  readonly #ending: StoredValue<string>;
  /** How the previous container ended. Kept until the restore is done and the notice is written. */
  readonly #ended: StoredValue<string>;
  readonly #notice: StoredValue<string>;

  constructor(kv: KV) {
    this.#count = new StoredValue(kv, "boots:count");
    this.#ending = new StoredValue(kv, "boots:ending");
    this.#ended = new StoredValue(kv, "boots:ended");
    this.#notice = new StoredValue(kv, "boots:notice");
  }

  get count(): number {
    return this.#count.value ?? 0;
  }

  /**
   * Noted now and not at the next start, because the actor may be evicted during that start. For the same reason `count` may lack
   * this container.
   */
  onContainerEnd(end: string): void {
    if (end !== "destroy") this.#noteEnd();
  }

  onContainerStart(): void {
    // The earlier container may have ended without an actor.
    if (this.count > 0) this.#noteEnd();
    this.#count.value = this.count + 1;
  }

  #noteEnd(): void {
    this.#ended.value ??= this.#ending.value ?? "";
    this.#ending.value = undefined;
  }

  /**
   * @param state undefined if the sandbox starts empty
   * @param dropped the files that were not restored, because the image has changed
   */
  noteRestore(state: Snapshot | undefined, dropped?: NamedFiles): void {
    const ending = this.#ended.value;
    this.#ended.value = undefined;
    if (state) this.#notice.value = restoredText({ ...state, dropped }, ending, isAllSaved(ending));
    else if (ending !== undefined) this.#notice.value = lostText(ending);
  }

  /** The saved state became a checkpoint while no container ran. The last container may have had changes that are not in it. */
  noteCheckpoint(state: Pick<Snapshot, "savedAt" | "files" | "bytes">): void {
    const ending = this.#ended.value ?? this.#ending.value ?? "";
    if (this.count > 0 && !isAllSaved(ending)) this.#notice.value = restoredText(state, ending, false);
  }

  noteEnding(how: keyof typeof ENDINGS): void {
    this.#ending.value = how;
  }

  /** The next start of a destroyed sandbox counts as the first. */
  onDestroy(): void {
    for (const stored of [this.#count, this.#ending, this.#ended, this.#notice]) stored.value = undefined;
  }

  takeNotice(): string | undefined {
    const notice = this.#notice.value;
    if (notice !== undefined) this.#notice.value = undefined;
    return notice;
  }
}

function isAllSaved(ending: string | undefined): boolean {
  return ending !== undefined && ending in ENDINGS && !NOT_ALL_SAVED.has(ending);
}
