/**
 * Counts container starts and remembers how the last container ended, because processes and kernels die with it. The next
 * result reports this once, with what was restored.
 */
import type { NamedFiles } from "../../container/sandboxd/snapshots/calls.ts";
import type { Snapshot } from "./saved-states.ts";
import { ENDINGS, lostText, restoredText } from "./texts.ts";

/** A Durable Object's synchronous key-value storage. */
type KV = Pick<SyncKvStorage, "get" | "put" | "delete">;

const COUNT = "boots:count";
/** Why the container is being stopped; unset if its end is unplanned. */
const ENDING = "boots:ending";
/** How the previous container ended, until it is known what was restored. */
const ENDED = "boots:ended";
const NOTICE = "boots:notice";

/** Ends that may lose part of the workspace, because calls and runs continue or the end does not wait. */
const NOT_ALL_SAVED = new Set(["unsaved_server", "unsaved_network", "platform"]);

export class RestartNotice {
  readonly #kv: KV;
  #notice: string | undefined;

  constructor(kv: KV) {
    this.#kv = kv;
    this.#notice = kv.get<string>(NOTICE);
  }

  get count(): number {
    return this.#kv.get<number>(COUNT) ?? 0;
  }

  containerStarted(): void {
    const before = this.count;
    const ending = this.#kv.get<string>(ENDING);
    this.#kv.put(COUNT, before + 1);
    this.#kv.delete(ENDING);
    if (before > 0) this.#kv.put(ENDED, ending ?? "");
  }

  /**
   * The sandbox was restored from `state`; without a state it starts empty.
   * @param dropped what was not restored, because the image has changed
   */
  workspaceRestored(state: Snapshot | undefined, dropped?: NamedFiles): void {
    const ending = this.#kv.get<string>(ENDED);
    this.#kv.delete(ENDED);
    const isAllSaved = ending !== undefined && ending in ENDINGS && !NOT_ALL_SAVED.has(ending);
    const loss = state
      ? restoredText({ ...state, dropped }, ending, isAllSaved)
      : ending !== undefined && lostText(ending);
    if (!loss) return;
    this.#notice = loss;
    this.#kv.put(NOTICE, loss);
  }

  /** The container is about to be stopped on purpose. */
  ending(how: keyof typeof ENDINGS): void {
    this.#kv.put(ENDING, how);
  }

  /** The sandbox was destroyed: its next start counts as the first. */
  destroyed(): void {
    this.#notice = undefined;
    for (const key of [COUNT, ENDING, ENDED, NOTICE]) this.#kv.delete(key);
  }

  /** Returns and clears the notice that the next result must carry. */
  takeNotice(): string | undefined {
    const notice = this.#notice;
    if (notice !== undefined) this.#kv.delete(NOTICE);
    this.#notice = undefined;
    return notice;
  }
}
