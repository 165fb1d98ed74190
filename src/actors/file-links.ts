/** What an actor remembers of the links to its files: they end with the container, and an upload link is good for one upload. */

/** In the actor's storage: what links of this container are bound to. */
const EPOCH = "file-links:epoch";

/** In the actor's storage: an upload link that is used up, under the time at which it expires. */
const USED = "file-links:used:";

/** How many expired links are removed whenever one is used up. More than one, so that they do not pile up. */
const FORGOTTEN = 8;

/** An upload link: its id, and when it expires in milliseconds since the epoch. */
export interface UploadLink {
  id: string;
  expires: number;
}

export class FileLinks {
  readonly #kv: Pick<SyncKvStorage, "get" | "put" | "delete" | "list">;
  /** Upload links that are being used. */
  readonly #taken = new Set<string>();

  constructor(kv: Pick<SyncKvStorage, "get" | "put" | "delete" | "list">) {
    this.#kv = kv;
  }

  /** What new links are bound to. */
  epoch(): string {
    const epoch = this.#kv.get<string>(EPOCH) ?? crypto.randomUUID().slice(0, 8);
    this.#kv.put(EPOCH, epoch);
    return epoch;
  }

  isOf(epoch: string): boolean {
    return this.#kv.get<string>(EPOCH) === epoch;
  }

  /** Takes an upload link, unless it is being used, or is used up. */
  take(link: UploadLink): "taken" | "busy" | "used" {
    if (this.#taken.has(link.id)) return "busy";
    if (this.isUsedUp(link)) return "used";
    this.#taken.add(link.id);
    return "taken";
  }

  isUsedUp(link: UploadLink): boolean {
    return this.#kv.get(keyOf(link)) !== undefined;
  }

  leave(link: UploadLink, isUsedUp: boolean): void {
    this.#taken.delete(link.id);
    if (!isUsedUp) return;
    this.#kv.put(keyOf(link), true);
    const expired = keyOf({ id: "", expires: Date.now() });
    for (const [key] of this.#kv.list({ prefix: USED, end: expired, limit: FORGOTTEN })) this.#kv.delete(key);
  }

  /** The container is gone. */
  forget(): void {
    this.#kv.delete(EPOCH);
    for (const [key] of this.#kv.list({ prefix: USED })) this.#kv.delete(key);
  }
}

/** In the order in which links expire. */
function keyOf({ id, expires }: UploadLink): string {
  return `${USED}${String(expires).padStart(16, "0")}:${id}`;
}
