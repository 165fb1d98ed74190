/**
 * Writes files. New content is completed under another name in the same directory before it replaces the file. So readers see
 * either the old or the new content, and an interrupted write leaves the old content. During the write, a note in `WRITES`
 * describes it. After a crash, the next sandboxd reads the note. It removes incomplete content, and puts complete content in
 * place.
 */
import { isUtf8 } from "node:buffer";
import { type Hash, createHash } from "node:crypto";
import {
  type Stats,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import {
  type FileHandle,
  chmod,
  chown,
  copyFile,
  lstat,
  mkdir,
  open,
  readlink,
  realpath,
  rename,
  rm,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import * as z from "zod/mini";
import { GuardedPath } from "./confinement.ts";
import { attempt, FileError, codeOf, toFileError, withFileErrors } from "./file-error.ts";
import { FORM_BYTES, fileOf } from "./form.ts";
import { WRITES, entriesOf, fileAs, unfinishedName } from "./directories.ts";
import { applyEdits } from "./editing.ts";
import type { Call, FileRequests } from "./operations.ts";
import { APPEND_BYTES, type Edit, EDITED_BYTES, type WriteResult, writtenSchema } from "./shapes.ts";
import { openFile, readRange, refuseOthers } from "./reading.ts";
import { limitBytes } from "./serve-operation.ts";
import { ChangeQueue, type QueuedResult } from "./change-queue.ts";

type WriteCall = Call<FileRequests["write"]>;
type EditCall = Call<FileRequests["edit"]>;
type RemoveCall = Call<FileRequests["remove"]>;
type Written = QueuedResult<WriteResult, "path">;
/** How many bytes are collected before a write. The next bytes are collected during that write. */
const WRITTEN_BYTES = 1024 * 1024;
/** How many symbolic links a path may follow: the same number as in Linux. */
const MAX_LINKS = 40;
/** How many results of ended changes are kept, for calls that are repeated after a lost response. */
const MAX_RESULTS = 64;
/** When sandboxd starts, it drops notes of finished changes that are older than this, in milliseconds. */
const NOTE_MS = 600_000;
const UNFINISHED_NOTE = ".new";

const writeSchema = z.object({
  temporary: z.string(),
  target: z.string(),
  /** The result of an append or edit, when its content is complete. */
  written: z.optional(writtenSchema),
});
const noteSchema = z.union([writeSchema, z.object({ removed: z.string() })]);

type WriteNote = z.infer<typeof writeSchema>;
type Note = z.infer<typeof noteSchema>;

type Parents = "make" | "refuse";

export class Writes {
  readonly #changes = new ChangeQueue();
  readonly #results = new Map<string, Promise<unknown>>();
  readonly #inProgress = new Set<string>();

  recover(): void {
    for (const { name: id } of entriesOf(WRITES)) {
      if (id.endsWith(UNFINISHED_NOTE)) forget(id);
      if (!/^[0-9a-f-]{1,64}$/.test(id)) continue;
      const note = fileAs(noteSchema, join(WRITES, id));
      try {
        const done = note && resultAfterCrash(note);
        if (done !== undefined) {
          this.#results.set(id, Promise.resolve(done));
          if (Date.now() - statSync(join(WRITES, id)).mtimeMs < NOTE_MS) continue;
        }
      } catch {
        // The directory was removed, and with it the unfinished content.
      }
      forget(id);
    }
  }

  write(call: WriteCall, body: AsyncIterable<Buffer>): Promise<Written> {
    return call.append ? this.#append(call, body) : this.#replace(call, body);
  }

  edit(call: EditCall, edits: readonly Edit[]): Promise<Written> {
    return this.#withTarget({ ...call, parents: "refuse" }, (entry, temporary, note) =>
      this.#changes.run({ path: entry }, async ({ path }) => {
        const found = await lstat(path).catch(() => undefined);
        const opened = await openFile(path);
        let before: Buffer;
        try {
          if (opened.stats.size > EDITED_BYTES) throw new FileError({ problem: "too_large" });
          before = await readRange(opened, 0, opened.stats.size);
        } finally {
          await opened.handle.close();
        }
        const { bytes, replaced, diff } = await applyEdits(before, edits, entry.target);
        const made = await fill(temporary, [bytes]);
        await copyOwnership(found, temporary, made);
        return await finish(call.id, path, { ...note, written: { size: made.size, replaced, diff } });
      }),
    );
  }

  async remove({ id, path, recursive, confined }: RemoveCall): Promise<QueuedResult<{}, "path">> {
    const parent = await withFileErrors(realDirectory(dirname(path)));
    const entry = await GuardedPath.open(parent, basename(path), confined === true);
    try {
      return await this.#changes.run({ path: entry }, async (reached) => {
        const found = await withFileErrors(lstat(reached.path));
        if (found.isDirectory() && !recursive) throw new FileError({ problem: "directory" });
        // If sandboxd ends before it responds, the note tells the next sandboxd that this call has removed the file.
        writeNote(id, { removed: entry.target });
        await rm(reached.path, { recursive: recursive === true });
        return {};
      });
    } finally {
      await entry.close();
    }
  }

  /** Does the work of a call once. A repeated call gets the first one's result, unless that failed. */
  async once<T>(id: string | undefined, work: () => Promise<T>): Promise<T> {
    if (id === undefined) return await work();
    for (let first = this.#results.get(id); first !== undefined;) {
      const before = await first.catch(() => undefined);
      if (before !== undefined) return before as T;
      const latest = this.#results.get(id);
      if (latest === first) break;
      // Another repetition has begun the work meanwhile.
      first = latest;
    }
    this.#inProgress.add(id);
    const result = work().finally(() => this.#inProgress.delete(id));
    this.#results.set(id, result);
    for (const oldest of this.#results.keys()) {
      if (this.#results.size <= MAX_RESULTS) break;
      // An upload can take longer than many other changes. Its note is needed until its end.
      if (this.#inProgress.has(oldest)) continue;
      this.#results.delete(oldest);
      forget(oldest);
    }
    return await result;
  }

  #replace(call: WriteCall, body: AsyncIterable<Buffer>): Promise<Written> {
    return this.#withTarget(call, async (entry, temporary) => {
      const hash = call.digest ? createHash("sha256") : undefined;
      const content = contentOf(call, body);
      const made = await fill(temporary, hash ? hashWhileReading(content, hash) : content, call.max);
      if (call.length !== undefined && made.size !== call.length) throw new FileError({ problem: "cut" });
      return await this.#changes.run({ path: entry }, async ({ path }) => {
        await copyOwnership(entry.stats, temporary, made);
        renameSync(temporary, path);
        forget(call.id);
        return { size: made.size, sha256: hash?.digest("hex") };
      });
    });
  }

  async #append(call: WriteCall, body: AsyncIterable<Buffer>): Promise<Written> {
    const added: Buffer[] = [];
    for await (const chunk of limitBytes(body, Math.min(call.max ?? APPEND_BYTES, APPEND_BYTES)))
      added.push(chunk);
    return await this.#withTarget(call, (entry, temporary, note) =>
      this.#changes.run({ path: entry }, async ({ path }) => {
        const found = await lstat(path).catch(() => undefined);
        if (found) await copyFile(path, temporary, constants.COPYFILE_FICLONE);
        const made = await fill(temporary, added);
        await copyOwnership(found, temporary, made);
        return await finish(call.id, path, { ...note, written: { size: made.size } });
      }),
    );
  }

  async #withTarget(
    { id, path, confined, parents = "make" }: EditCall & { parents?: Parents },
    make: (entry: GuardedPath, temporary: string, note: WriteNote) => Promise<Written>,
  ): Promise<Written> {
    const { entry, found } = await targetOf(path, confined === true, parents);
    const name = unfinishedName(id);
    const temporary = join(dirname(entry.path), name);
    try {
      if (found) refuseOthers(found);
      const note = { temporary: join(dirname(entry.target), name), target: entry.target };
      writeNote(id, note);
      // An earlier sandboxd could have begun this call, and its note may be lost.
      await rm(temporary, { force: true });
      return await make(entry, temporary, note);
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined);
      forget(id);
      throw error;
    } finally {
      await entry.close();
    }
  }
}

/** Writes the note, then replaces the file. The note prevents a repeated call from applying the change twice. */
async function finish(
  id: string,
  path: string,
  note: WriteNote & { written: WriteResult },
): Promise<WriteResult> {
  writeNote(id, note);
  await rename(join(dirname(path), basename(note.temporary)), path);
  return note.written;
}

/**
 * Resolves a path and the symbolic links at its end.
 * @throws FileError `outside` if the caller is confined and the path leads elsewhere, `missing` for a missing directory that is
 * not created
 */
async function targetOf(
  path: string,
  isConfined: boolean,
  parents: Parents,
): Promise<{ entry: GuardedPath; found: Stats | undefined }> {
  let at = path;
  for (let links = 0; links <= MAX_LINKS; links++) {
    const parent = dirname(at);
    const real = await realDirectory(parent).catch(async (error: unknown) => {
      if (links > 0 || codeOf(error) !== "ENOENT") throw error;
      if (parents === "refuse") throw toFileError(error);
      await makeDirectory(parent);
      return await realDirectory(parent);
    });
    const entry = await GuardedPath.open(real, basename(at), isConfined);
    try {
      const found = entry.stats;
      if (!found?.isSymbolicLink()) return { entry, found };
      at = resolve(real, nameOf(await readlink(entry.path, { encoding: "buffer" })));
    } catch (error) {
      await entry.close();
      throw error;
    }
    await entry.close();
  }
  throw new FileError({ problem: "system", code: "ELOOP" });
}

async function realDirectory(path: string): Promise<string> {
  return nameOf(await realpath(path, { encoding: "buffer" }));
}

/** @throws FileError if the name is not UTF-8. As a string, it would be the name of another file. */
function nameOf(name: Buffer): string {
  if (!isUtf8(name)) throw new FileError({ problem: "system", code: "EILSEQ" });
  return name.toString();
}

async function fill(
  path: string,
  body: AsyncIterable<Buffer> | Iterable<Buffer>,
  max = Number.POSITIVE_INFINITY,
): Promise<Stats> {
  let handle: FileHandle | undefined;
  let writing = Promise.resolve();
  try {
    let chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of limitBytes(body, max)) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes < WRITTEN_BYTES) continue;
      handle ??= await open(path, "a");
      await writing;
      writing = handle.writeFile(Buffer.concat(chunks));
      // The promise is awaited later. This prevents an unhandled rejection until then.
      writing.catch(() => undefined);
      chunks = [];
      bytes = 0;
    }
    // A blocking write of so few bytes takes less time than a write in a thread.
    if (handle === undefined) return addNow(path, Buffer.concat(chunks));
    await writing;
    await handle.writeFile(Buffer.concat(chunks));
    return await handle.stat();
  } finally {
    await writing.catch(() => undefined);
    await handle?.close();
  }
}

function addNow(path: string, bytes: Buffer): Stats {
  const file = openSync(path, "a");
  try {
    writeFileSync(file, bytes);
    return fstatSync(file);
  } finally {
    closeSync(file);
  }
}

function contentOf({ form, mark, max }: WriteCall, body: AsyncIterable<Buffer>): AsyncIterable<Buffer> {
  if (form !== undefined) return fileOf(limitBytes(body, (max ?? Infinity) + FORM_BYTES), form);
  return mark === undefined ? body : removeMark(body, Buffer.from(mark, "hex"));
}

async function* removeMark(body: AsyncIterable<Buffer>, mark: Buffer): AsyncGenerator<Buffer> {
  let held = Buffer.alloc(0);
  for await (const chunk of body) {
    const all = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    const known = Math.max(0, all.length - mark.length);
    if (known > 0) yield all.subarray(0, known);
    held = Buffer.from(all.subarray(known));
  }
  if (!held.equals(mark)) throw new FileError({ problem: "cut" });
}

async function* hashWhileReading(body: AsyncIterable<Buffer>, hash: Hash): AsyncGenerator<Buffer> {
  for await (const chunk of body) {
    hash.update(chunk);
    yield chunk;
  }
}

/** Keeps the replaced file's owner and mode, without set-id bits, which were meant for the old content. */
async function copyOwnership(found: Stats | undefined, path: string, made: Stats): Promise<void> {
  if (!found) return;
  refuseOthers(found);
  if (made.uid !== found.uid || made.gid !== found.gid)
    await chown(path, found.uid, found.gid).catch(() => undefined);
  if (made.mode !== found.mode) await chmod(path, found.mode & 0o1777);
}

/** Finishes or undoes a change that a crash interrupted. @returns its result, or undefined if a repeated call must do it again */
function resultAfterCrash(note: Note): WriteResult | {} | undefined {
  if ("removed" in note) return lstatSync(note.removed, { throwIfNoEntry: false }) ? undefined : {};
  if (note.written === undefined) rmSync(note.temporary, { force: true });
  else if (existsSync(note.temporary)) renameSync(note.temporary, note.target);
  return note.written;
}

/** Creates a directory and its missing parents. Node's option `recursive` would report ENOENT for a read-only file system. */
async function makeDirectory(path: string): Promise<void> {
  const make = () =>
    mkdir(path).catch((error: unknown) => {
      if (codeOf(error) !== "EEXIST") throw error;
    });
  await make().catch(async (error: unknown) => {
    if (codeOf(error) !== "ENOENT" || dirname(path) === path) throw error;
    await makeDirectory(dirname(path));
    await make();
  });
}

/** Writes the note. If this fails (full disk, or user code has replaced the directory), the write continues without a note. */
function writeNote(id: string, note: Note): void {
  const path = join(WRITES, id);
  const write = () => {
    // A crash leaves the earlier note or the new one.
    writeFileSync(path + UNFINISHED_NOTE, JSON.stringify(note));
    renameSync(path + UNFINISHED_NOTE, path);
  };
  try {
    write();
  } catch (error) {
    forget(id + UNFINISHED_NOTE);
    if (codeOf(error) !== "ENOENT") return;
    try {
      mkdirSync(WRITES, { recursive: true });
      write();
    } catch {
      // The write continues without a note.
    }
  }
}

function forget(id: string): void {
  // If this fails, the leftover note is harmless.
  attempt(() => unlinkSync(join(WRITES, id)), undefined);
}
