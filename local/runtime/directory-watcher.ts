import { type FSWatcher, lstatSync, readdirSync, watch } from "node:fs";
import { join } from "node:path";
import { errnoOf, messageOf } from "./errors.ts";

export interface FileChange {
  eventType: "create" | "modify" | "delete";
  /** Below the path that was asked for, and written like it. */
  path: string;
  isDirectory: boolean;
}

export interface ChangeFilter {
  /** Kinds of events to report; all when undefined. */
  kinds: Set<string> | undefined;
  include: RegExp | undefined;
  exclude: RegExp | undefined;
}

/** Directories one watcher follows at most; each takes a kernel watch that all sandboxes of the machine share. */
const MAX_DIRECTORIES = 8192;

/**
 * Tells what is created, modified and deleted in a directory and, if asked to, below it. It knows the names that were
 * there, which is how it tells a creation from a deletion: the system reports both as one kind.
 */
export class DirectoryWatcher {
  onChange: (change: FileChange) => void = () => {};
  /** Called once, when the watched directory itself is gone or cannot be watched any more. */
  onEnd: (reason: string) => void = () => {};
  readonly #root: string;
  readonly #recursive: boolean;
  readonly #filter: ChangeFilter;
  readonly #directories = new Map<string, FSWatcher>();
  /** All names seen, and whether each is a directory. */
  readonly #names = new Map<string, boolean>();

  /** Throws the system's error when the path is missing or cannot be watched. */
  constructor(path: string, recursive: boolean, filter: ChangeFilter) {
    this.#root = path;
    this.#recursive = recursive;
    this.#filter = filter;
    if (!lstatSync(path).isDirectory()) this.#watchFile(path);
    else this.#enter(path, false);
  }

  close(): void {
    for (const watcher of this.#directories.values()) watcher.close();
    this.#directories.clear();
    this.#names.clear();
  }

  #watchFile(path: string): void {
    const watcher = watch(path, () => this.#report("modify", path, false));
    watcher.on("error", (error) => this.#end(messageOf(error)));
    this.#directories.set(path, watcher);
  }

  /** Watches a directory and notes what is in it; with `isNew`, what is in it is news. */
  #enter(directory: string, isNew: boolean): void {
    if (this.#directories.size >= MAX_DIRECTORIES)
      throw new Error(`more than ${MAX_DIRECTORIES} directories`);
    const watcher = watch(directory, (kind, name) => {
      if (name !== null) this.#look(join(directory, name), kind === "change");
    });
    watcher.on("error", (error) => {
      if (directory === this.#root) this.#end(messageOf(error));
      else this.#leave(directory);
    });
    this.#directories.set(directory, watcher);
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name);
      if (this.#excluded(path)) continue;
      if (isNew) this.#look(path, false);
      else this.#note(path, entry.isDirectory(), false);
    }
  }

  #look(path: string, changed: boolean): void {
    if (this.#excluded(path)) return;
    const stats = lstatSync(path, { throwIfNoEntry: false });
    const known = this.#names.get(path);
    if (!stats) {
      if (known !== undefined) {
        this.#names.delete(path);
        this.#leave(path);
        this.#report("delete", path, known);
      } else if (!lstatSync(this.#root, { throwIfNoEntry: false })) {
        this.#end("the watched directory was removed");
      }
    } else if (known === undefined) {
      this.#report("create", path, stats.isDirectory());
      this.#note(path, stats.isDirectory(), true);
    } else if (changed && !stats.isDirectory()) {
      this.#report("modify", path, false);
    }
  }

  #note(path: string, isDirectory: boolean, isNew: boolean): void {
    this.#names.set(path, isDirectory);
    if (!isDirectory || !this.#recursive) return;
    try {
      this.#enter(path, isNew);
    } catch (error) {
      // A directory that vanished meanwhile is told by its parent.
      if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ENOTDIR") this.#end(messageOf(error));
    }
  }

  #leave(directory: string): void {
    for (const [path, watcher] of this.#directories) {
      if (path !== directory && !path.startsWith(`${directory}/`)) continue;
      watcher.close();
      this.#directories.delete(path);
    }
    for (const path of this.#names.keys()) if (path.startsWith(`${directory}/`)) this.#names.delete(path);
  }

  #excluded(path: string): boolean {
    return this.#filter.exclude?.test(path.slice(this.#root.length)) ?? false;
  }

  #report(eventType: FileChange["eventType"], path: string, isDirectory: boolean): void {
    if (this.#filter.kinds && !this.#filter.kinds.has(eventType)) return;
    if (this.#filter.include && !this.#filter.include.test(path.slice(this.#root.length))) return;
    this.onChange({ eventType, path, isDirectory });
  }

  #end(reason: string): void {
    this.close();
    this.onEnd(reason);
  }
}
