import type { Figure } from "../figure.ts";
import type { WorkerClient } from "../worker-client.ts";
import { type Row, interleave, latencyRows } from "../measure.ts";

const SIZES = [
  { label: "1 KB", bytes: 1024, pairs: 400 },
  // The most bytes in one answer of read_file.
  { label: "64 KiB", bytes: 64 * 1024, pairs: 200 },
  { label: "1 MB", bytes: 1024 * 1024, pairs: 60 },
];

/** Files of this size are also read by bytes. */
const LARGE_BYTES = 1024 * 1024;

/** Returns a text of this many bytes, in lines of 64 bytes. */
function lines(bytes: number): string {
  return `${"x".repeat(63)}\n`.repeat(bytes / 64);
}

export const files: Figure = {
  name: "files",
  baseline:
    "a minimal Node server in the same sandbox, which does not write atomically and sends 1 MB in one response instead of sixteen",
  async measure({ ours, bare }, { count }) {
    const sandbox = "bench-files";
    await bare.serve(sandbox);
    const rows: Row[] = [];
    for (const { label, bytes, pairs } of SIZES) {
      const content = lines(bytes);
      const path = `/workspace/${bytes}.txt`;
      const times = { pairs: count(pairs), warmup: count(pairs / 5) };
      const written = await interleave(
        () => ours.tool("write_file", { sandbox, path, content }),
        () => bare.call({ sandbox, method: "writeFile", path, content }),
        times,
      );
      rows.push(...latencyRows(`write_file ${label}`, written));
      const read = await interleave(
        () => readAll(ours, { sandbox, path }, bytes),
        () => bare.call({ sandbox, method: "readFile", path }),
        times,
      );
      rows.push(...latencyRows(`read_file ${label}`, read));
      if (bytes < LARGE_BYTES) continue;
      const readAsBytes = await interleave(
        () => readBytes(ours, { sandbox, path }),
        () => bare.call({ sandbox, method: "readFile", path }),
        times,
      );
      rows.push(...latencyRows(`read_file ${label} in base64`, readAsBytes));
    }
    return rows;
  },
};

/** The offset that an answer of read_file names for the next page; undefined at the end of the file. */
function nextOffset(answer: string): number | undefined {
  const next = /Go on with (?:encoding base64 and )?offset (\d+)/.exec(answer.slice(-200))?.[1];
  return next === undefined ? undefined : Number(next);
}

/** Reads a file by bytes to its end, page by page. */
async function readBytes(ours: WorkerClient, file: { sandbox: string; path: string }): Promise<void> {
  let offset: number | undefined = 0;
  while (offset !== undefined)
    offset = nextOffset(await ours.tool("read_file", { ...file, offset, encoding: "base64" }));
}

/** Reads a file of lines to its end, page by page. */
async function readAll(
  ours: WorkerClient,
  file: { sandbox: string; path: string },
  bytes: number,
): Promise<void> {
  let offset: number | undefined = 1;
  while (offset !== undefined)
    offset = nextOffset(await ours.tool("read_file", { ...file, offset, limit: bytes / 64 }));
}
