/** Saves the workspace and the agent's conversation of an ended task to R2, and restores them into a sandbox. */
import { taskDirectory } from "../../container/sandboxd/protocol.ts";
import type { Files } from "../container/files.ts";
import { ToolError } from "../shared/errors.ts";
import { inPieces } from "../shared/pieces.ts";
import { type Archive, PIECE_BYTES } from "../runs/task-detail.ts";

/** What is needed to restore an archive. */
export interface ArchiveSource {
  /** The whole id of the run that it was made from. */
  runID: string;
  pieces: Archive["pieces"];
}

/** What this needs of the actor. */
export interface ArchiveHost {
  files: Files;
  bucket: R2Bucket;
  prefix(runID: string): string;
  archiveMaxBytes: number;
}

const PARTS = ["workspace", "conversation"] as const;

/** Bytes that an archive may take beyond the sizes of its files. */
const ADDED_BYTES = 1024 * 1024;

function tooLarge(maxBytes: number): ToolError {
  const MiB = maxBytes / (1024 * 1024);
  return new ToolError(
    "too_large",
    `its workspace, packed, is larger than the ${MiB} MiB of an archive (TASK_ARCHIVE_MAX_MB).`,
  );
}

type Part = (typeof PARTS)[number];

/** What agents call conversations. */
const ID = /^[\w-]{1,200}$/;

/** How often a part is packed that breaks off each time. */
const ATTEMPTS = 3;

export class TaskArchive {
  readonly #host: ArchiveHost;
  /** As the sandbox knows the task. */
  readonly #task: string;

  constructor(host: ArchiveHost, task: string) {
    this.#host = host;
    this.#task = task;
  }

  /** Undefined when nothing could be packed. */
  async make(
    runID: string,
    conversations: string,
    conversation: string | undefined,
  ): Promise<Archive | undefined> {
    const { files, archiveMaxBytes } = this.#host;
    const talk = conversation !== undefined && ID.test(conversation) ? conversation : undefined;
    const chosen = await files.choose(this.#task, archiveMaxBytes, conversations, talk);
    const pieces = { workspace: 0, conversation: 0 };
    let bytes = 0;
    try {
      for (const part of chosen.hasConversation ? PARTS : PARTS.slice(0, 1)) {
        const kept = await this.#keep(runID, part, this.#mostBytes - bytes, pieces);
        if (kept === undefined) {
          await this.#discard(runID, pieces);
          return undefined;
        }
        bytes += kept;
      }
    } catch (error) {
      await this.#discard(runID, pieces);
      throw error;
    }
    return { pieces, bytes, left: chosen.left.count > 0 ? chosen.left : undefined };
  }

  /**
   * Puts a part into objects of `PIECE_BYTES` as it is being packed, and counts them in `pieces`. Answers its bytes, at
   * most `max`; undefined where it breaks off each time.
   */
  async #keep(
    runID: string,
    part: Part,
    max: number,
    pieces: Archive["pieces"],
  ): Promise<number | undefined> {
    let attempts = 0;
    return await this.#host.files.packed(this.#task, part, async (body) => {
      let bytes = 0;
      let count = 0;
      try {
        for await (const piece of inPieces(body, PIECE_BYTES)) {
          bytes += piece.length;
          if (bytes > max) throw tooLarge(this.#host.archiveMaxBytes);
          await this.#host.bucket.put(this.#key(runID, part, count++), piece);
          pieces[part] = Math.max(pieces[part], count);
        }
      } catch (error) {
        if (error instanceof ToolError || ++attempts < ATTEMPTS) throw error;
        return undefined;
      }
      // An attempt before may have come further.
      await this.#discard(runID, { workspace: 0, conversation: 0, [part]: pieces[part] }, count);
      pieces[part] = count;
      return bytes;
    });
  }

  /** Writes the pieces to the files in which the task's script expects them. */
  async restore({ runID, pieces }: ArchiveSource): Promise<void> {
    for (const part of PARTS) {
      for (let index = 0; index < pieces[part]; index++) {
        const object = await this.#host.bucket.get(this.#key(runID, part, index));
        if (!object) throw new Error(`piece ${index} of the ${part} of ${runID} is missing`);
        const path = `${taskDirectory(this.#task)}/${part}.${String(index).padStart(3, "0")}`;
        await this.#host.files.write(path, new Uint8Array(await object.arrayBuffer()), false, false);
      }
    }
  }

  /** The bound of an archive: the files that the sandbox chose by their sizes, and what tar and gzip add to each. */
  get #mostBytes(): number {
    return this.#host.archiveMaxBytes + Math.ceil(this.#host.archiveMaxBytes / 16) + ADDED_BYTES;
  }

  /** Removes the pieces from number `from` on. */
  async #discard(runID: string, pieces: Archive["pieces"], from = 0): Promise<void> {
    const keys = PARTS.flatMap((part) =>
      Array.from({ length: pieces[part] }, (_, index) => this.#key(runID, part, index)).slice(from),
    );
    if (keys.length > 0) await this.#host.bucket.delete(keys);
  }

  #key(runID: string, part: string, index: number): string {
    return `${this.#host.prefix(runID)}archive/${part}.${String(index).padStart(3, "0")}`;
  }
}
