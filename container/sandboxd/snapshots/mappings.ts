/**
 * Writes through memory mappings (mmap(2)) may leave no new time. On a tmpfs, only the first access to a page can set one, and not
 * if it reads. On other file systems, a page gets no second time before it is written to the disk.
 *
 * So a thorough save compares the content of files that a program may have written like this: those that a process has mapped, and
 * those that a program has read or mapped since their content was last read. A local sandbox's disk records each access
 * (`strictatime` in local/engine/confine.ts). Other file systems record only the first one after a change. That is enough, because
 * there a new mapping sets a time when it first writes to a page.
 */
import type { BigIntStats } from "node:fs";
import { lstatSync, readFileSync } from "node:fs";
import { attempt } from "../file-error.ts";
import { pids } from "../run-processes.ts";
import { yieldBetweenSteps } from "../small-steps.ts";
import { RECENT_MS, compareContent } from "./file-read.ts";
import { type FoundFile, type ScannedEntry, inodeOf, isFound } from "./file-status.ts";
import { bytesOf } from "./manifest.ts";
import type { Index } from "./state.ts";

/**
 * A line of /proc/PID/maps (proc(5)) for a shared mapping. Captures the file's inode. A mapping that cannot be written may become
 * writable later, and then gets no new access time (mprotect(2)).
 */
const SHARED = /^\S+ ...s \S+ \S+ (\d+)/gm;

export class Mappings {
  readonly #readAt = BigInt(Date.now() - RECENT_MS) * 1_000_000n;
  readonly #inodes = new Set<string>();
  /** The users of processes whose mappings sandboxd may not read. All their files count as mapped. */
  readonly #owners = new Set<number>();

  /** @param without processes to leave out */
  static async read(without: ReadonlySet<number>): Promise<Mappings> {
    const mappings = new Mappings();
    const turn = yieldBetweenSteps();
    for (const pid of pids()) {
      await turn();
      if (!without.has(pid)) mappings.#add(`/proc/${pid}`);
    }
    return mappings;
  }

  #add(process: string): void {
    // Zombies and threads of the kernel have no mappings: the file is empty.
    const maps = attempt(() => readFileSync(`${process}/maps`, "latin1"), undefined);
    for (const [, inode = ""] of (maps ?? "").matchAll(SHARED)) this.#inodes.add(inode);
    const owner = maps === undefined ? attempt(() => lstatSync(process).uid, undefined) : undefined;
    if (owner !== undefined) this.#owners.add(owner);
  }

  #isMapped(inode: string, owner: number): boolean {
    return this.#inodes.has(inode) || this.#owners.has(owner);
  }

  /** The last access to a file whose content is read after this; undefined if a later write may leave no other access time. */
  lastAccess({ atimeNs, ctimeNs, ino, uid }: BigIntStats): string | undefined {
    const isEarlier = atimeNs < this.#readAt && ctimeNs < this.#readAt;
    return isEarlier && !this.#isMapped(String(ino), Number(uid)) ? String(atimeNs) : undefined;
  }

  /**
   * Forgets the status of files whose content differs from the index although their status is the same. So a save reads them again.
   */
  async forgetChanged(
    root: string,
    entries: readonly ScannedEntry[],
    index: Index,
    signal: AbortSignal,
  ): Promise<void> {
    const turn = yieldBetweenSteps();
    for (const found of entries) {
      await turn();
      signal.throwIfAborted();
      const known = isFound(found) ? index.get(found.path) : undefined;
      if (!isFound(found) || known?.entry.type !== "file" || known.status !== found.status) continue;
      if (!this.#mayHaveChanged(found, known.accessed)) continue;
      const compared = await compareContent(bytesOf(root, found.path), known.entry, turn).catch(
        () => undefined,
      );
      signal.throwIfAborted();
      if (compared === undefined) continue;
      const accessed = this.lastAccess(compared.stats);
      index.set(found.path, compared.isSame ? { ...known, accessed } : { ...known, status: undefined });
    }
  }

  #mayHaveChanged({ status, uid, accessedAt }: FoundFile, accessed: string | undefined): boolean {
    return accessed === undefined || accessed !== String(accessedAt) || this.#isMapped(inodeOf(status), uid);
  }
}
