/** Counts operations by wrapping the platform's objects. */

import type { Counts } from "../counts.ts";

type Add = (key: keyof Counts, by: number) => void;

export function noCounts(): Counts {
  return {
    worker_requests: 0,
    durable_object_requests: 0,
    rows_read: 0,
    rows_written: 0,
    r2_class_a: 0,
    r2_class_b: 0,
  };
}

/** Each call of a method of an actor is billed as one request. */
export function countCalls(namespace: DurableObjectNamespace, add: Add): DurableObjectNamespace {
  return new Proxy(namespace, {
    get(target, key) {
      const found = Reflect.get(target, key, target);
      if (key !== "getByName" && key !== "get")
        return typeof found === "function" ? found.bind(target) : found;
      return (...args: unknown[]) =>
        watchCalls(Reflect.apply(found, target, args), () => add("durable_object_requests", 1));
    },
  });
}

/** Wraps an object so that `onCall` runs before each of its methods. */
function watchCalls(object: object, onCall: (method: PropertyKey) => void): object {
  return new Proxy(object, {
    get(target, key) {
      const found = Reflect.get(target, key, target);
      if (typeof found !== "function") return found;
      return (...args: unknown[]) => {
        onCall(key);
        return Reflect.apply(found, target, args);
      };
    },
  });
}

const CLASS_A = new Set<PropertyKey>(["put", "list", "createMultipartUpload"]);
const CLASS_B = new Set<PropertyKey>(["get", "head"]);

/** Deletes are not counted, because they are free. */
export function countBucket<Binding extends object>(bucket: Binding, add: Add): Binding {
  return watchCalls(bucket, (method) => {
    if (CLASS_A.has(method)) add("r2_class_a", 1);
    if (CLASS_B.has(method)) add("r2_class_b", 1);
  }) as Binding;
}

/** Counts rows as SQLite reports them. Each read or write of a key is billed as one row, and so is setting an alarm. */
export function countStorage(storage: DurableObjectStorage, add: Add): void {
  const { sql, kv } = storage;
  const exec = sql.exec.bind(sql);
  let open: SqlStorageCursor<Record<string, SqlStorageValue>>[] = [];
  replace(sql, "exec", (...args: Parameters<typeof exec>) => {
    const cursor = exec(...args);
    // A cursor knows its number of rows only after the caller has read them.
    if (open.length === 0)
      queueMicrotask(() => {
        for (const { rowsRead, rowsWritten } of open) {
          add("rows_read", rowsRead);
          add("rows_written", rowsWritten);
        }
        open = [];
      });
    open.push(cursor);
    return cursor;
  });
  for (const [target, key, kind] of [
    [kv, "get", "rows_read"],
    [kv, "put", "rows_written"],
    [kv, "delete", "rows_written"],
    [storage, "get", "rows_read"],
    [storage, "put", "rows_written"],
    [storage, "delete", "rows_written"],
    [storage, "setAlarm", "rows_written"],
  ] as const) {
    const original: (...args: unknown[]) => unknown = Reflect.get(target, key).bind(target);
    replace(target, key, (...args: unknown[]) => {
      add(kind, 1);
      return original(...args);
    });
  }
}

function replace(target: object, key: string, value: unknown): void {
  Object.defineProperty(target, key, { value, configurable: true });
}
