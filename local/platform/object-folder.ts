/**
 * The bucket `RESULTS` of the local platform: a folder that workerd serves. miniflare's bucket is itself a Worker on the only
 * thread of workerd, and forwards content in pieces of 4 KiB. For a long output, that took more time than everything else.
 */

import type { Env as ServerEnv } from "../../src/shared/config.ts";
import type { Bucket, StoredObject } from "../../src/storage/object-store.ts";
import { EngineClient, type LocalEnv } from "./engine-client.ts";
import type { DiskSpace, SyncRequest } from "./engine-protocol.ts";
import { folderOf, keyOf, placeOf } from "./object-names.ts";
import { pause } from "../../src/shared/timers.ts";

/**
 * Saves leave this many bytes of the disk free, or a tenth of a smaller disk. If the disk were full, the server could not write
 * its databases, and every call would fail.
 */
const RESERVED_BYTES = 2 * 1024 ** 3;
const RESERVED_SHARE = 0.1;
/** The objects of saved files. Their sizes are limited only for each principal, and a save that fails is tried again. */
const SAVED_FILES = /\/(?:pack|manifest)\.\d+$/;

/** How many objects are deleted before a pause. A deletion blocks the thread. */
const DELETED_AT_ONCE = 4;

export interface ObjectFolderEnv extends LocalEnv, Pick<ServerEnv, "RESULTS"> {
  /** The binding of the folder. Without it, objects are in miniflare's bucket. */
  OBJECTS_FOLDER?: Fetcher;
}

/** Changes each environment only once, because the configuration is parsed once for each environment object. */
export function changeOnce<Base extends object>(
  change: (env: Base) => Base,
): <Env extends Base>(env: Env) => Env {
  const environments = new WeakMap<Base, Base>();
  return <Env extends Base>(env: Env) => {
    const changed = environments.get(env) ?? change(env);
    environments.set(env, changed);
    return changed as Env;
  };
}

export const withObjectFolder = changeOnce((env: ObjectFolderEnv) => {
  const { OBJECTS_FOLDER: folder } = env;
  if (!folder) return env;
  return { ...env, RESULTS: new FolderBucket(folder, new EngineClient(env)) };
});

/**
 * A folder as a bucket.
 *
 * Lists and deletions end with a pause, because they are always ready, and workerd looks for new requests only when nothing is. The
 * deletion of 500 saved states blocked all requests for 8 s, and that of one with 500 objects for 2 s. Reads need no pause, because
 * their bytes go to a connection.
 */
class FolderBucket implements Bucket {
  readonly #folder: Fetcher;
  readonly #engine: EngineClient;

  constructor(folder: Fetcher, engine: EngineClient) {
    this.#folder = folder;
    this.#engine = engine;
  }

  /** @throws Error if the disk is almost full and the object belongs to a save */
  async put(key: string, body: Uint8Array | ReadableStream<Uint8Array>): Promise<void> {
    if (SAVED_FILES.test(key)) {
      const { freeBytes, bytes } = (await this.#engine.call("GET", "/disk")) as DiskSpace;
      // The length of a stream is unknown, and at most that of an object (4 MiB).
      const length = body instanceof Uint8Array ? body.length : 0;
      if (freeBytes - length < Math.min(RESERVED_BYTES, bytes * RESERVED_SHARE))
        throw new Error(`the disk of the state directory is almost full: ${freeBytes} bytes are free`);
    }
    await this.#request("PUT", key, { body });
    // workerd leaves the content in the kernel's memory, but writes databases to the disk. After a crash of the machine, all objects
    // of the last half minute were empty, and databases referred to them.
    await this.#engine.call("POST", "/sync", placeOf(key) satisfies SyncRequest);
  }

  async get(
    key: string,
    { range }: { range?: { offset: number; length: number } },
  ): Promise<StoredObject | null> {
    const headers = range && { range: `bytes=${range.offset}-${range.offset + range.length - 1}` };
    const response = await this.#request("GET", key, { headers });
    if (response.status === 404) return null;
    const total =
      response.headers.get("content-range")?.split("/")[1] ?? response.headers.get("content-length");
    const body = response.body ?? new Blob().stream();
    return { size: Number(total), body, bytes: () => response.bytes() };
  }

  async delete(keys: string[]): Promise<void> {
    for (let at = 0; at < keys.length; at += DELETED_AT_ONCE) {
      await Promise.all(keys.slice(at, at + DELETED_AT_ONCE).map((key) => this.#request("DELETE", key)));
      await pause(0);
    }
    const folders = new Set(keys.map((key) => placeOf(key).folder));
    await Promise.all([...folders].map((folder) => this.#removeIfEmpty(folder)));
    await pause(0);
  }

  /** Nothing is written to a folder when its objects are deleted: its run or its saved workspace is not needed any more. */
  async #removeIfEmpty(folder: string): Promise<void> {
    if ((await this.#namesIn(folder)).length === 0)
      await this.#folder.fetch(`http://folder/${encodeURIComponent(folder)}`, { method: "DELETE" });
  }

  async list({ prefix, delimiter }: { prefix: string; delimiter?: string }) {
    const one = folderOf(prefix);
    const folders = one === undefined ? await this.#namesIn("") : [one];
    const keys = folders.map(async (folder) =>
      (await this.#namesIn(folder)).map((file) => ({ key: keyOf({ folder, file }) })),
    );
    const found = (await Promise.all(keys))
      .flat()
      .filter(({ key }) => key.startsWith(prefix))
      .filter(({ key }) => delimiter === undefined || !key.slice(prefix.length).includes(delimiter));
    await pause(0);
    return { objects: found, truncated: false };
  }

  /** The names of the files in a folder, or of all folders. */
  async #namesIn(folder: string): Promise<string[]> {
    const response = await this.#folder.fetch(`http://folder/${encodeURIComponent(folder)}`);
    if (response.ok) return (JSON.parse(await response.text()) as { name: string }[]).map(({ name }) => name);
    await response.body?.cancel();
    if (response.status === 404) return [];
    throw new Error(`the list of the objects in ${folder} failed with status ${response.status}`);
  }

  /**
   * @throws Error with the status, unless an object to read or delete is missing (404), or a range is behind the object's end (416):
   * the reader compares the object's size with what it needs
   */
  async #request(method: string, key: string, init: RequestInit = {}): Promise<Response> {
    const { folder, file } = placeOf(key);
    const path = [folder, file].map(encodeURIComponent).join("/");
    const response = await this.#folder.fetch(`http://folder/${path}`, { ...init, method });
    const isMissing = method !== "PUT" && (response.status === 404 || response.status === 416);
    if (!response.ok && !isMissing)
      throw new Error(`${method} of the object ${key} failed with status ${response.status}`);
    if (method !== "GET" || response.status === 404) await response.body?.cancel();
    return response;
  }
}
