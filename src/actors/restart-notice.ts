/**
 * Counts the starts of a sandbox's container and remembers how the last one ended, because processes, kernels and files
 * outside the workspace die with it. The next result says so, once, and what of the workspace is back.
 */
import type { Snapshot } from "./snapshot-registry.ts";
import { ENDINGS, lostText, restoredText } from "./texts.ts";

/** The synchronous key-value part of a Durable Object's storage. */
type KV = Pick<SyncKvStorage, "get" | "put" | "delete">;

const COUNT = "boots:count";
/** Why the running container is being stopped; unset when its end is unplanned. */
const ENDING = "boots:ending";
/** How the container before the running one ended, until what is back of its workspace is known. */
const ENDED = "boots:ended";
const NOTICE = "boots:notice";

/** The ends before which not all of the workspace may have been saved: calls and runs go on, or the end does not wait. */
const NOT_ALL_SAVED = new Set(["server", "unsaved_network", "platform"]);

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

  /** The container has started. */
  containerStarted(): void {
    const before = this.count;
    const ending = this.#kv.get<string>(ENDING);
    this.#kv.put(COUNT, before + 1);
    this.#kv.delete(ENDING);
    if (before > 0) this.#kv.put(ENDED, ending ?? "");
  }

  /** The container has its workspace back, as it was saved; without a state it starts with none. */
  workspaceRestored(state: Snapshot | undefined): void {
    const ending = this.#kv.get<string>(ENDED);
    this.#kv.delete(ENDED);
    const isAllSaved = ending !== undefined && ending in ENDINGS && !NOT_ALL_SAVED.has(ending);
    const loss = state ? restoredText(state, ending, isAllSaved) : ending !== undefined && lostText(ending);
    if (!loss) return;
    this.#notice = loss;
    this.#kv.put(NOTICE, loss);
  }

  /** The container is about to be stopped in order. */
  ending(how: keyof typeof ENDINGS): void {
    this.#kv.put(ENDING, how);
  }

  /** The caller destroyed the sandbox: its next start counts as the first. */
  destroyed(): void {
    this.#notice = undefined;
    for (const key of [COUNT, ENDING, ENDED, NOTICE]) this.#kv.delete(key);
  }

  /** Takes the notice about a restart that the next result must carry. */
  takeNotice(): string | undefined {
    const notice = this.#notice;
    if (notice !== undefined) this.#kv.delete(NOTICE);
    this.#notice = undefined;
    return notice;
  }
}
