/**
 * Numbers containers, and remembers how the last container ended. The processes and kernels of that container ended too. Results
 * say this, and name what was restored, until a client has got one of them.
 */
import type { NamedFiles } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import type { Destroyed } from "./account-calls.ts";
import type { Snapshot } from "./saved-states.ts";
import { type KV, StoredValue } from "./stored-value.ts";
import { ENDINGS, LATER, lostText, restoredText } from "./texts.ts";

/**
 * The ends of a container after which part of the workspace may be missing. Either calls and runs continued after the save, or
 * the end did not wait for the save, or saves failed.
 */
const NOT_ALL_SAVED = new Set([
  "unsaved_idle",
  "unsaved_room",
  "unsaved_server",
  "unsaved_network",
  "unsaved_back",
  "platform",
]);

/** How many notices of losses are kept besides the last notice, until a client has got them. */
const MAX_LOSSES = 3;

interface Notice {
  text: string;
  /** Whether files are missing. Otherwise the next notice says the same again. */
  isLoss: boolean;
}

export class RestartNotice {
  readonly #boot: StoredValue<number>;
  /** Why the container is being stopped; unset if its end is unplanned. */
  readonly #ending: StoredValue<string>;
  /** How the previous container ended. Kept until the restore is done and the notice is written. */
  readonly #ended: StoredValue<string>;
  /** The notices that no client has got. */
  readonly #notices: StoredValue<Notice[]>;

  constructor(kv: KV) {
    this.#boot = new StoredValue(kv, "restart:boot");
    this.#ending = new StoredValue(kv, "restart:ending");
    this.#ended = new StoredValue(kv, "restart:ended");
    this.#notices = new StoredValue(kv, "restart:notices");
  }

  /** The number of the sandbox's last container; 0 before its first. No later sandbox of this name has the same numbers. */
  get boot(): number {
    return this.#boot.value ?? 0;
  }

  /**
   * Noted now and not at the next start, because the actor may be evicted during that start. For the same reason `boot` may be
   * the number before.
   */
  onContainerEnd(end: string): void {
    if (end !== "destroy") this.#noteEnd();
  }

  onContainerStart(): void {
    // The earlier container may have ended without an actor.
    if (this.boot > 0) this.#noteEnd();
    this.#boot.value = (this.#boot.value ?? Date.now()) + 1;
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
    const isSaved = ending === undefined || isAllSaved(ending);
    if (state) {
      const isLoss = !isSaved || state.left !== undefined || dropped !== undefined;
      this.#add({ text: restoredText({ ...state, dropped }, ending, isSaved), isLoss });
    } else if (ending !== undefined) this.#add({ text: lostText(ending), isLoss: true });
  }

  #add(notice: Notice): void {
    const isKept = ({ text, isLoss }: Notice) => isLoss && text !== notice.text;
    this.#notices.value = [...this.#unshown.filter(isKept).slice(0, MAX_LOSSES), notice];
  }

  get #unshown(): readonly Notice[] {
    return this.#notices.value ?? [];
  }

  /** The saved state became a checkpoint while no container ran. The last container may have had changes that are not in it. */
  noteCheckpoint(state: Pick<Snapshot, "savedAt" | "files" | "bytes">): void {
    const ended = this.#ended.value;
    const ending = ended ?? this.#ending.value ?? "";
    // After the removal of an unused sandbox, `boot` is 0, and only the end of its container is known.
    if ((this.boot > 0 || ended !== undefined) && !isAllSaved(ending))
      this.#add({ text: restoredText(state, ending, false), isLoss: true });
  }

  noteEnding(how: keyof typeof ENDINGS): void {
    this.#ending.value = how;
  }

  /** The workspace was changed. If the server saved it to stop, it may end before the next save. */
  noteChange(): void {
    if (this.#ending.value === "server") this.#ending.value = "unsaved_server";
  }

  /** The result of a restore says what was not saved before, so the next notice need not. */
  noteUnsavedShown(): void {
    if (this.#ended.value === "unsaved_back") this.#ended.value = "back";
  }

  /** The next start of a destroyed sandbox counts as the first. If its saved files stay, they may lack acknowledged changes. */
  onDestroy({ isKept }: Pick<Destroyed, "isKept">): void {
    const ended = this.#ended.value ?? this.#ending.value;
    const losses = this.#unshown.filter(({ isLoss }) => isLoss);
    this.forget();
    if (!isKept) return;
    this.#ended.value = ended === undefined || isAllSaved(ended) ? undefined : ended;
    this.#notices.value = losses;
  }

  /** A new sandbox begins, or one from another saved state. It has lost nothing. */
  forget(): void {
    for (const stored of [this.#boot, this.#ending, this.#ended, this.#notices]) stored.value = undefined;
  }

  /** The notice for the next result. It stays until `confirm`, because the result's client may have disconnected. */
  get current(): string | undefined {
    return this.#unshown.map(({ text }) => text).join(LATER) || undefined;
  }

  /** Drops a notice that a client got. */
  confirm(notice: string): void {
    if (notice === this.current) this.#notices.value = undefined;
  }
}

function isAllSaved(ending: string): boolean {
  return ending in ENDINGS && !NOT_ALL_SAVED.has(ending);
}
