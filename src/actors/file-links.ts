/**
 * The links to a sandbox's files and run outputs. Links to files end with the container; links to run outputs outlive it. An
 * upload link works once.
 */
import type { SandboxKV, SandboxKey } from "../storage/sandbox-schema.ts";
import type { FileOperations } from "../container/file-operations.ts";
import { type FileLink, type KeptLink, LINK_ID_CHARS, base64url } from "../shared/link-token.ts";
import { sha256 } from "../shared/sha256.ts";

/** The storage key of the running container's id. Links to its files contain the id. */
const EPOCH = "file-links:epoch";

const LINK_PREFIX = "file-links:kept:";

/** The storage key of the number of stored links. To count them each time would read all. */
const COUNT = "file-links:count";

/** The unit of expiry times in ids. */
const EXPIRES_UNIT_MS = 600_000;

/** How many expired links are deleted with each new link. More than one, so that expired links do not accumulate. */
const DELETED_PER_LINK = 8;

/** The most stored links. With more, the links that expire first are deleted. A link takes about 4 KB at most, for its path. */
const MAX_LINKS = 10_000;

export interface UploadLink {
  id: string;
  expires: number;
}

export class FileLinks {
  readonly #kv: SandboxKV;
  readonly #files: Pick<FileOperations, "call">;
  /** The links whose uploads are in progress, and when the links expire. */
  readonly #claimed = new Map<string, number>();

  constructor(kv: SandboxKV, files: Pick<FileOperations, "call">) {
    this.#kv = kv;
    this.#files = files;
  }

  epoch(): string {
    const epoch = this.#kv.get<string>(EPOCH) ?? crypto.randomUUID().slice(0, 8);
    this.#kv.put(EPOCH, epoch);
    return epoch;
  }

  isCurrentEpoch(epoch: string): boolean {
    return this.#kv.get<string>(EPOCH) === epoch;
  }

  /** Stores links to files of the container, and starts a container if none runs. Returns the links' ids. */
  async keepFiles(links: readonly Omit<FileLink, "actor" | "epoch" | "id">[]): Promise<string[]> {
    await this.#files.call("stat", { path: "/" });
    const epoch = this.epoch();
    return Promise.all(links.map((link) => this.keep({ ...link, epoch })));
  }

  /** Stores a link and returns its id. The same download with the same expiry has the same id. */
  async keep(link: KeptLink): Promise<string> {
    const nonce = "direction" in link && link.direction === "upload" ? crypto.randomUUID() : "";
    const digest = await sha256(JSON.stringify(link) + nonce);
    const id = (timeOf(link.expires) + base64url(digest)).slice(0, LINK_ID_CHARS);
    if (this.find(id)) return id;
    let stored = this.#kv.get<number>(COUNT) ?? 0;
    stored -= this.#remove(`${LINK_PREFIX}${timeOf(Date.now() - EXPIRES_UNIT_MS)}`);
    if (stored >= MAX_LINKS) stored -= this.#remove();
    this.#kv.put(`${LINK_PREFIX}${id}`, link);
    this.#kv.put(COUNT, stored + 1);
    return id;
  }

  find(id: string): KeptLink | undefined {
    return this.#kv.get<KeptLink>(`${LINK_PREFIX}${id}`);
  }

  claim(link: UploadLink): "claimed" | "busy" | "used" {
    // The platform may end an upload's request before it releases the link.
    for (const [id, expires] of this.#claimed) if (expires < Date.now()) this.#claimed.delete(id);
    if (this.#claimed.has(link.id)) return "busy";
    const kept = this.find(link.id);
    if (kept && "isUsedUp" in kept) return "used";
    this.#claimed.set(link.id, link.expires);
    return "claimed";
  }

  releaseClaim(link: UploadLink, isUsedUp: boolean): void {
    this.#claimed.delete(link.id);
    const kept = this.find(link.id);
    if (isUsedUp && kept) this.#kv.put<KeptLink>(`${LINK_PREFIX}${link.id}`, { ...kept, isUsedUp });
  }

  /** Deletes the first links, up to `end`. The keys sort by expiry. @returns how many were deleted */
  #remove(end?: SandboxKey): number {
    const first = [...this.#kv.list({ prefix: LINK_PREFIX, end, limit: DELETED_PER_LINK })];
    for (const [key] of first) this.#kv.delete(key);
    return first.length;
  }

  onContainerEnd(): void {
    this.#kv.delete(EPOCH);
  }
}

/** The time as the beginning of an id. These texts sort like the times. */
function timeOf(ms: number): string {
  return Math.ceil(ms / EXPIRES_UNIT_MS)
    .toString(36)
    .padStart(5, "0");
}
