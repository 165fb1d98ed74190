/** A Durable Object's synchronous key-value storage. */
export type KV = Pick<SyncKvStorage, "get" | "put" | "delete">;

/** A value in an actor's storage, held in memory because calls read it often. */
export class StoredValue<T> {
  readonly #kv: KV;
  readonly #key: string;
  #value: T | undefined;

  constructor(kv: KV, key: string) {
    this.#kv = kv;
    this.#key = key;
    this.#value = kv.get<T>(key);
  }

  get value(): T | undefined {
    return this.#value;
  }

  /** Undefined deletes the value. */
  set value(value: T | undefined) {
    this.#value = value;
    if (value === undefined) this.#kv.delete(this.#key);
    else this.#kv.put(this.#key, value);
  }
}
