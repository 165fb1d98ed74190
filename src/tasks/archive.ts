/** Saves the workspace and the agent's conversation of an ended task to R2, and restores them into a sandbox. */
import { answerOf } from "../container/answer.ts";
import { ToolError } from "../shared/errors.ts";
import { countOf } from "../container/shell.ts";
import { type Archive, PIECE_BYTES } from "../runs/task-detail.ts";
import { type TaskScript, entriesOf } from "./script.ts";

/** What is needed to restore an archive. */
export interface ArchiveSource {
  /** The whole id of the run that it was made from. */
  runID: string;
  pieces: Archive["pieces"];
}

/** What this needs of the actor. */
export interface ArchiveHost {
  bucket: R2Bucket;
  prefix(runID: string): string;
  writeFile(path: string, content: string, options: { encoding: string }): Promise<unknown>;
  archiveMaxBytes: number;
}

const PARTS = ["workspace", "conversation"] as const;

const FILES = { workspace: "files.tgz", conversation: "talk.tgz" } as const;

/** Files left out that are named. */
const MAX_NAMED = 20;

/** Bytes that an archive may take beyond the sizes of its files. */
const ADDED_BYTES = 1024 * 1024;

function tooLarge(maxBytes: number): ToolError {
  const MiB = maxBytes / (1024 * 1024);
  return new ToolError(
    "too_large",
    `its workspace, packed, is larger than the ${MiB} MiB of an archive (TASK_ARCHIVE_MAX_MB).`,
  );
}

export class TaskArchive {
  readonly #host: ArchiveHost;
  readonly #script: TaskScript;

  constructor(host: ArchiveHost, script: TaskScript) {
    this.#host = host;
    this.#script = script;
  }

  /** Undefined when nothing could be packed. */
  async make(
    runID: string,
    conversations: string,
    conversation: string | undefined,
  ): Promise<Archive | undefined> {
    const reply = await this.#script.call(
      "archive",
      this.#host.archiveMaxBytes,
      conversations,
      conversation ?? "",
    );
    const [word, ...numbers] = reply.words;
    if (word !== "archive") return undefined;
    const counts = numbers.map((number) => countOf(number) ?? 0);
    const [fileBytes = 0, talkBytes = 0, count = 0, leftBytes = 0] = counts;
    if (fileBytes === 0) return undefined;
    const sizes = { workspace: fileBytes, conversation: talkBytes };
    const pieces = { workspace: 0, conversation: 0 };
    let bytes = 0;
    for (const part of PARTS) {
      for (let at = 0; at < sizes[part]; at += PIECE_BYTES) {
        const path = `${this.#script.directory}/${FILES[part]}`;
        const piece = await this.#script.read(path, at, PIECE_BYTES);
        bytes += piece?.length ?? 0;
        if (!piece?.length || bytes > this.#mostBytes) {
          await this.#discard(runID, pieces);
          if (bytes > this.#mostBytes) throw tooLarge(this.#host.archiveMaxBytes);
          return undefined;
        }
        await this.#host.bucket.put(this.#key(runID, part, pieces[part]), piece);
        pieces[part]++;
      }
    }
    const largest = entriesOf(reply, 2)
      .slice(0, MAX_NAMED)
      .map(([size, path = ""]) => ({ path, size: countOf(size) ?? 0 }));
    return { pieces, bytes, left: count > 0 ? { count, bytes: leftBytes, largest } : undefined };
  }

  /** Writes the pieces to the files in which the task's script expects them. */
  async restore({ runID, pieces }: ArchiveSource): Promise<void> {
    for (const part of PARTS) {
      for (let index = 0; index < pieces[part]; index++) {
        const object = await this.#host.bucket.get(this.#key(runID, part, index));
        if (!object) throw new Error(`piece ${index} of the ${part} of ${runID} is missing`);
        const content = new Uint8Array(await object.arrayBuffer()).toBase64();
        const path = `${this.#script.directory}/${part}.${String(index).padStart(3, "0")}`;
        await answerOf(this.#host.writeFile(path, content, { encoding: "base64" }), () => true);
      }
    }
  }

  /** The bound of an archive: the files that the sandbox chose by their sizes, and what tar and gzip add to each. */
  get #mostBytes(): number {
    return this.#host.archiveMaxBytes + Math.ceil(this.#host.archiveMaxBytes / 16) + ADDED_BYTES;
  }

  async #discard(runID: string, pieces: Archive["pieces"]): Promise<void> {
    const keys = PARTS.flatMap((part) =>
      Array.from({ length: pieces[part] }, (_, index) => this.#key(runID, part, index)),
    );
    if (keys.length > 0) await this.#host.bucket.delete(keys);
  }

  #key(runID: string, part: string, index: number): string {
    return `${this.#host.prefix(runID)}archive/${part}.${String(index).padStart(3, "0")}`;
  }
}
