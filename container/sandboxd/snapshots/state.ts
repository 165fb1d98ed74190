/** sandboxd's record of the workspace's last save or restore, on disk for the next sandboxd. */
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod/mini";
import { SNAPSHOT, fileAs } from "../directories.ts";
import { type Mark, markSchema } from "./snapshot-requests.ts";
import { yieldBetweenSteps } from "../small-steps.ts";
import { entrySchema } from "./manifest.ts";

/**
 * A line of an index. Checked, because user code can change the index. `status` is the file's status, which later scans compare.
 * It is undefined if the file may have changed while it was read. `accessed` is the file's access time when its content was read:
 * see `Mappings`.
 */
const knownSchema = z.object({
  entry: entrySchema,
  status: z.optional(z.string()),
  accessed: z.optional(z.string()),
  /** The inode of a file that a save has read. */
  inode: z.optional(z.string()),
});
export type Known = z.infer<typeof knownSchema>;
export type Index = Map<string, Known>;
const MARK_FILE = join(SNAPSHOT, "mark");
const indexFile = (id: string) => join(SNAPSHOT, `index.${id}`);

export class SnapshotState {
  #index: { id: string; index: Index } | undefined;

  readMark(): Mark {
    return fileAs(markSchema, MARK_FILE) ?? { isRestoring: false };
  }

  setMark(mark: Mark): void {
    mkdirSync(SNAPSHOT, { recursive: true });
    writeFileSync(`${MARK_FILE}.new`, JSON.stringify(mark));
    renameSync(`${MARK_FILE}.new`, MARK_FILE);
  }

  /** The last snapshot's index. If it is lost, it is empty, and everything counts as new. */
  async readIndex(): Promise<Index> {
    const { snapshot } = this.readMark();
    if (snapshot === undefined) return new Map();
    if (this.#index?.id === snapshot) return this.#index.index;
    const index: Index = new Map();
    try {
      const text = await readFile(indexFile(snapshot), "utf8");
      const turn = yieldBetweenSteps();
      for (const line of text.split("\n")) {
        await turn();
        const known = knownSchema.parse(JSON.parse(line));
        index.set(known.entry.path, known);
      }
    } catch {
      index.clear();
    }
    this.#index = { id: snapshot, index };
    return index;
  }

  keep(id: string, index: Index): void {
    mkdirSync(SNAPSHOT, { recursive: true });
    writeFileSync(indexFile(id), Array.from(index.values(), (known) => JSON.stringify(known)).join("\n"));
    this.#index = { id, index };
  }

  commit(id: string): void {
    this.setMark({ snapshot: id, isRestoring: false });
    for (const name of readdirSync(SNAPSHOT))
      if (name.startsWith("index.") && join(SNAPSHOT, name) !== indexFile(id))
        rmSync(join(SNAPSHOT, name), { force: true });
  }
}
