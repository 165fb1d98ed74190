import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { CONFIGS, serve } from "../bed.ts";
import type { Figure } from "../figure.ts";
import { type Heap, PRODUCT_SERVICE, openHeap } from "../heap.ts";
import { type Row, row } from "../measure.ts";
import { SIZES, runToEnd, printCommand } from "./output.ts";

const SAMPLE_MS = 50;
/** How long the Worker may take after a command to store the end of its output, in milliseconds. */
const SETTLE_MS = 4000;

/**
 * The Worker's memory while a command prints much, and afterwards. Garbage is collected before each sample, because it would
 * count as used memory.
 */
export const memory: Figure = {
  name: "memory",
  baseline: "the same Worker after its first command, before it has seen any output",
  async measure(bed, { quick }) {
    const served = await serve(CONFIGS.ours, bed.engine, join(bed.directory, "memory"), { inspector: true });
    const ours = served.client;
    const sandbox = "bench-memory";
    const rows: Row[] = [];
    await ours.tool("run_command", { sandbox, command: "true" });
    const heap = await openHeap(served, PRODUCT_SERVICE);
    try {
      const before = await heap.live();
      for (const { label, bytes } of SIZES) {
        if (quick && bytes > 100 * 1024 * 1024) continue;
        const peakMiB = await peak(heap, runToEnd(ours, sandbox, printCommand(bytes)));
        rows.push(row(`live memory of the Worker, output ${label}`, "MiB", peakMiB, before));
        await pause(SETTLE_MS);
        rows.push(row(`live memory of the Worker after output ${label}`, "MiB", await heap.live(), before));
      }
    } finally {
      heap.close();
      await served.close();
    }
    return rows;
  },
};

async function peak(heap: Heap, work: Promise<void>): Promise<number> {
  let peakMiB = 0;
  let isDone = false;
  const settled = work.finally(() => (isDone = true));
  while (!isDone) {
    peakMiB = Math.max(peakMiB, await heap.live());
    await Promise.race([settled, pause(SAMPLE_MS)]);
  }
  await settled;
  return peakMiB;
}
