/**
 * Counts the starts of a sandbox's container and remembers how the last one ended, because files, processes and kernels
 * die with the container. The next result says so, once.
 */

/** The synchronous key-value part of a Durable Object's storage. */
type KV = Pick<SyncKvStorage, "get" | "put" | "delete">;

const COUNT = "boots:count";
/** Why the running container is being stopped; unset when its end is unplanned. */
const ENDING = "boots:ending";
const NOTICE = "boots:notice";

const ENDINGS: Record<string, string> = {
  idle: "stopped because nobody used it",
  room: "stopped, while nobody used it, to make room for another of your sandboxes",
};

const LOST = "its files, processes and kernel state are gone";

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
  started(): void {
    const before = this.count;
    const ending = this.#kv.get<string>(ENDING);
    this.#kv.put(COUNT, before + 1);
    this.#kv.delete(ENDING);
    if (before === 0) return;
    this.#notice = `The sandbox was ${ENDINGS[ending ?? ""] ?? "restarted"}: ${LOST}.`;
    this.#kv.put(NOTICE, this.#notice);
  }

  /** The container is about to be stopped: nobody used it, or another of the principal's sandboxes needs its place. */
  ending(how: keyof typeof ENDINGS): void {
    this.#kv.put(ENDING, how);
  }

  /** The caller destroyed the sandbox: its next start counts as the first. */
  forget(): void {
    this.#notice = undefined;
    for (const key of [COUNT, ENDING, NOTICE]) this.#kv.delete(key);
  }

  /** Takes the notice about lost state that the next result must carry. */
  takeNotice(): string | undefined {
    const notice = this.#notice;
    if (notice !== undefined) this.#kv.delete(NOTICE);
    this.#notice = undefined;
    return notice;
  }
}
