/** What an actor remembers of the links to its files: they end with the container, and an upload link is good for one upload. */

/** In the actor's storage: what links of this container are bound to, and the upload links that are used up. */
const STATE = "file-links";

interface State {
  epoch: string;
  used: string[];
}

/** Links that are remembered as used up. With more, all links of the container end. */
const MAX_USED = 1000;

export class FileLinks {
  readonly #kv: Pick<SyncKvStorage, "get" | "put" | "delete">;
  /** Upload links that are being used. */
  readonly #taken = new Set<string>();

  constructor(kv: Pick<SyncKvStorage, "get" | "put" | "delete">) {
    this.#kv = kv;
  }

  /** What new links are bound to. */
  epoch(): string {
    const state = this.#state ?? { epoch: crypto.randomUUID().slice(0, 8), used: [] };
    this.#kv.put(STATE, state);
    return state.epoch;
  }

  isOf(epoch: string): boolean {
    return this.#state?.epoch === epoch;
  }

  /** Takes an upload link, unless it is being used, or is used up. */
  take(id: string): "taken" | "busy" | "used" {
    if (this.#taken.has(id)) return "busy";
    if (this.#state?.used.includes(id) !== false) return "used";
    this.#taken.add(id);
    return "taken";
  }

  isUsedUp(id: string): boolean {
    return this.#state?.used.includes(id) === true;
  }

  leave(id: string, isUsedUp: boolean): void {
    this.#taken.delete(id);
    const state = this.#state;
    if (!isUsedUp || !state) return;
    if (state.used.length >= MAX_USED) return this.forget();
    this.#kv.put(STATE, { ...state, used: [...state.used, id] });
  }

  /** The container is gone. */
  forget(): void {
    this.#kv.delete(STATE);
  }

  get #state(): State | undefined {
    return this.#kv.get<State>(STATE);
  }
}
