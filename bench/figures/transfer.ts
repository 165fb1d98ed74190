import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runFile } from "../../local/engine/host-programs.ts";
import type { TestBed } from "../bed.ts";
import type { Figure } from "../figure.ts";
import { type Row, quantile, row } from "../measure.ts";
import { backgroundCommand, peaks, processesOfSandbox } from "../process-memory.ts";

const MB = 1e6;

/** A directory in memory, for the bare server's files. A sandbox's /workspace is in memory, too. */
export const IN_MEMORY = "/dev/shm";

const SANDBOX = "bench-transfer";

/** Uploads a gigabyte and downloads it, by links. Also measures the memory of each program that forwards the bytes. */
export const transfer: Figure = {
  name: "transfer",
  baseline: "curl with a bare Node server and a file in memory",
  async measure(bed, { quick, count }) {
    const directory = mkdtempSync(join(IN_MEMORY, "sandbox-mcp-bench-"));
    const path = join(directory, "file");
    const bytes = quick ? 100 * MB : 1000 * MB;
    await writeNoise(path, bytes);
    const bare = fork(fileURLToPath(new URL("../bare-files.ts", import.meta.url)), [path]);
    try {
      const [port] = await once(bare, "message");
      const bareURL = `http://127.0.0.1:${port}/`;
      await bed.ours.tool("run_command", { sandbox: SANDBOX, command: backgroundCommand(SANDBOX) });
      const processes = {
        Worker: bed.ours.pid,
        engine: bed.engine.pid,
        sandboxd: processesOfSandbox(SANDBOX, bed.engine.pid).sandboxd,
      };
      const before = await peaks(Object.values(processes), async () => {});
      const rows: Row[] = [];
      for (const [name, direction, args] of [
        ["up", "upload", ["-T", path]],
        ["down", "download", ["-o", "/dev/null"]],
      ] as const) {
        const speeds: { ours: number[]; bare: number[] } = { ours: [], bare: [] };
        const peakMemory = await peaks(Object.values(processes), async () => {
          for (let n = 0; n < Math.max(3, count(5)); n++) {
            speeds.bare.push(bytes / MB / (await secondsOf([...args, bareURL])));
            speeds.ours.push(bytes / MB / (await secondsOf([...args, await link(bed, direction)])));
          }
        });
        rows.push(
          row(`${name}, ${bytes / MB} MB`, "MB/s", quantile(speeds.ours, 0.99), quantile(speeds.bare, 0.99)),
        );
        for (const [index, process] of Object.keys(processes).entries())
          rows.push(
            row(`${name}, peak memory of ${process}`, "MiB", peakMemory[index] ?? NaN, before[index] ?? NaN),
          );
      }
      return rows;
    } finally {
      bare.disconnect();
      rmSync(directory, { recursive: true });
    }
  },
};

async function writeNoise(path: string, bytes: number): Promise<void> {
  const piece = crypto.getRandomValues(new Uint8Array(50_000));
  const file = await open(path, "w");
  for (let written = 0; written < bytes; written += piece.length) await file.write(piece);
  await file.close();
}

async function link({ ours }: TestBed, direction: "upload" | "download"): Promise<string> {
  const args = { sandbox: SANDBOX, path: "file", direction };
  const [url = ""] = /http:\/\/\S+\/files\/\S+/.exec(await ours.tool("file_link", args)) ?? [];
  return url;
}

/** Returns how long curl takes. @throws Error if the status is not a success */
async function secondsOf(args: readonly string[]): Promise<number> {
  const { stdout } = await runFile("curl", ["-sSf", ...args, "-w", "\n%{time_total}"]);
  return Number(stdout.slice(stdout.lastIndexOf("\n") + 1));
}
