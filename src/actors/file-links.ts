/**
 * The links to an actor's files and runs. Those to files end with the container, and an upload link is good for one upload; those to what
 * a run left outlive it.
 */
import { type KeptLink, LINK_ID_CHARS } from "../shared/file-link.ts";
import { sha256 } from "../shared/sha256.ts";

/** In the actor's storage: what links of this container are bound to. */
const EPOCH = "file-links:epoch";

/** In the actor's storage: an upload link that is used up, under the time at which it expires. */
const USED = "file-links:used:";

/** In the actor's storage: a link, under its id, which begins with the time at which it expires. */
const LINK_PREFIX = "file-links:kept:";

/** The unit of that time, milliseconds. */
const EXPIRES_UNIT_MS = 600_000;

/** How many expired links are removed whenever one is kept or used up. More than one, so that they do not pile up. */
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

  belongsTo(epoch: string): boolean {
    return this.#kv.get<string>(EPOCH) === epoch;
  }

  /**
   * Keeps a link, and answers its id. A download of the same that ends at the same time has the same id, so that results that are shown
   * again take no more room.
   */
  async keep(link: KeptLink): Promise<string> {
    const nonce = "direction" in link && link.direction === "upload" ? crypto.randomUUID() : "";
    const digest = await sha256(JSON.stringify(link) + nonce);
    const rest = digest.toBase64({ alphabet: "base64url", omitPadding: true });
    const id = (timeOf(link.expires) + rest).slice(0, LINK_ID_CHARS);
    this.#kv.put(LINK_PREFIX + id, link);
    this.#removeExpired(LINK_PREFIX, LINK_PREFIX + timeOf(Date.now() - EXPIRES_UNIT_MS));
    return id;
  }

  find(id: string): KeptLink | undefined {
    return this.#kv.get<KeptLink>(LINK_PREFIX + id);
  }

  /** Takes an upload link, unless it is being used, or is used up. */
  claim(link: UploadLink): "taken" | "busy" | "used" {
    if (this.#taken.has(link.id)) return "busy";
    if (this.isUsedUp(link)) return "used";
    this.#taken.add(link.id);
    return "taken";
  }

  isUsedUp(link: UploadLink): boolean {
    return this.#kv.get(keyOf(link)) !== undefined;
  }

  releaseClaim(link: UploadLink, isUsedUp: boolean): void {
    this.#taken.delete(link.id);
    if (!isUsedUp) return;
    this.#kv.put(keyOf(link), true);
    this.#removeExpired(USED, keyOf({ id: "", expires: Date.now() }));
  }

  #removeExpired(prefix: string, end: string): void {
    for (const [key] of this.#kv.list({ prefix, end, limit: FORGOTTEN })) this.#kv.delete(key);
  }

  /** The container has ended. */
  ended(): void {
    this.#kv.delete(EPOCH);
    for (const [key] of this.#kv.list({ prefix: USED })) this.#kv.delete(key);
  }
}

/** A time as text whose order is that of times. */
function timeOf(ms: number): string {
  return Math.ceil(ms / EXPIRES_UNIT_MS)
    .toString(36)
    .padStart(5, "0");
}

/** In the order in which links expire. */
function keyOf({ id, expires }: UploadLink): string {
  return `${USED}${String(expires).padStart(16, "0")}:${id}`;
}
