import type { SandboxKey, SandboxKV } from "../storage/sandbox-schema.ts";

export type KV = Pick<SandboxKV, "get" | "put" | "delete">;

/** A value in an actor's storage, cached in memory because calls read it often. */
export class StoredValue<T> {
  readonly #kv: KV;
  readonly #key: SandboxKey;
  #value: T | undefined;

  constructor(kv: KV, key: SandboxKey) {
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
