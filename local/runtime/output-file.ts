import { execFile } from "node:child_process";
import { closeSync, fstatSync, openSync, read, readSync, unlinkSync } from "node:fs";
import { promisify } from "node:util";

const readAsync = promisify(read);

/** Bytes that `execute` returns of one stream; of a longer one, the first and the last half. */
export const OUTPUT_CAP_BYTES = 16 * 1024 * 1024;

/** Disk space that one stream may take before its middle is given back. */
const TRIM_ABOVE_BYTES = 64 * 1024 * 1024;
const KEPT_AT_EACH_END = OUTPUT_CAP_BYTES;

/** Reads up to this size are cheaper done at once than handed to the thread pool. */
const SYNC_READ_BYTES = 128 * 1024;

/**
 * A new file that a shell writes one stream of one command into, held open here: what was written can still be read
 * when the command removes the file or its directory. A background child that goes on writing writes into a file
 * without a name, and never into a later command's output.
 */
export class OutputFile {
  readonly path: string;
  readonly #fd: number;
  #trimming = false;

  constructor(path: string) {
    this.path = path;
    this.#fd = openSync(path, "wx+", 0o600);
  }

  /** What is in the file, in the middle of anything above the cap a line that counts what is left out. */
  async read(): Promise<Buffer> {
    const { size } = fstatSync(this.#fd);
    if (size === 0) return Buffer.alloc(0);
    if (size <= SYNC_READ_BYTES) {
      const bytes = Buffer.allocUnsafe(size);
      return bytes.subarray(0, readSync(this.#fd, bytes, 0, size, 0));
    }
    if (size <= OUTPUT_CAP_BYTES) return this.#slice(0, size);
    const half = OUTPUT_CAP_BYTES / 2;
    const note = `\n[${size - OUTPUT_CAP_BYTES} bytes left out by the local runtime]\n`;
    return Buffer.concat([
      await this.#slice(0, half),
      Buffer.from(note),
      await this.#slice(size - half, half),
    ]);
  }

  /**
   * Frees the middle of a file that has grown large, which nobody will read, while the command goes on writing: output
   * without end takes bounded space. Best effort; without `fallocate`, or where the file system has no holes, the file
   * just grows, as in the container.
   */
  trim(): void {
    if (this.#trimming) return;
    const { size, blocks } = fstatSync(this.#fd);
    if (blocks * 512 < TRIM_ABOVE_BYTES) return;
    this.#trimming = true;
    const range = ["--offset", String(KEPT_AT_EACH_END), "--length", String(size - 2 * KEPT_AT_EACH_END)];
    execFile("fallocate", ["--punch-hole", ...range, this.path], () => (this.#trimming = false));
  }

  async #slice(position: number, length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await readAsync(this.#fd, bytes, done, length - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return bytes.subarray(0, done);
  }

  close(): void {
    closeSync(this.#fd);
    try {
      unlinkSync(this.path);
    } catch {
      // The command may have removed it.
    }
  }
}
