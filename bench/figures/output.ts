import type { WorkerClient } from "../worker-client.ts";
import type { Figure } from "../figure.ts";
import { type Row, interleave, quantile, row } from "../measure.ts";
import { backgroundCommand, peakMiB, processesOfSandbox, resetPeak } from "../process-memory.ts";

const KiB = 1024;
export const SIZES = [
  { label: "1 KB", bytes: KiB, rounds: 20 },
  { label: "1 MB", bytes: KiB * KiB, rounds: 20 },
  { label: "100 MB", bytes: 100 * KiB * KiB, rounds: 1 },
  { label: "1 GB", bytes: KiB * KiB * KiB, rounds: 1 },
];

/** The most output of a command of the bare Worker, because the bare Worker keeps several copies of it in memory. */
const MAX_BARE = 4 * KiB * KiB;

/** Returns a command that prints this many bytes of text. */
export function printCommand(bytes: number): string {
  return `head -c ${bytes} /dev/zero | tr '\\0' x`;
}

/** One command that prints much: its rate, and the processor time and memory that it costs. */
export const output: Figure = {
  name: "output",
  baseline:
    "a minimal Node server in the same sandbox, which responds with the whole output; beyond 4 MB, the command alone, with its output to /dev/null",
  async measure(bed, { count, quick }) {
    const rows: Row[] = [];
    for (const [index, { label, bytes, rounds }] of SIZES.entries()) {
      if (quick && bytes > 100 * KiB * KiB) continue;
      // The server slows down sandboxes that have printed much.
      const sandbox = `bench-output-${index}`;
      await bed.ours.tool("run_command", { sandbox, command: backgroundCommand(`bench-ours-${index}`) });
      await bed.bare.serve(sandbox);
      await bed.bare.call({ sandbox, method: "command", command: backgroundCommand(`bench-bare-${index}`) });
      const inside = {
        ours: processesOfSandbox(`bench-ours-${index}`, bed.engine.pid),
        bare: processesOfSandbox(`bench-bare-${index}`, bed.engine.pid),
      };
      const command = bytes > MAX_BARE ? `${printCommand(bytes)} >/dev/null` : printCommand(bytes);
      const processes = [
        { name: "workerd", ours: bed.ours.pid, bare: bed.bare.pid },
        { name: "control server", ours: inside.ours.control, bare: inside.bare.control },
        { name: "sandboxd", ours: inside.ours.sandboxd, bare: inside.bare.sandboxd },
      ];
      for (const { ours, bare } of processes) for (const pid of [ours, bare]) resetPeak(pid);
      const times = await interleave(
        () => runToEnd(bed.ours, sandbox, printCommand(bytes)),
        () => bed.bare.call({ sandbox, method: "command", command }),
        { pairs: count(rounds), warmup: rounds > 1 ? 1 : 0 },
      );
      const speed = (milliseconds: number[]) => bytes / KiB / KiB / (quantile(milliseconds, 0.5) / 1000);
      rows.push(row(`output ${label} speed`, "MB/s", speed(times.ours), speed(times.baseline)));
      for (const { name, ours, bare } of processes)
        rows.push(row(`output ${label} ${name} peak`, "MiB", peakMiB(ours), peakMiB(bare)));
    }
    return rows;
  },
};

/** Runs the command, and calls get_result until it has ended. */
export async function runToEnd(ours: WorkerClient, sandbox: string, command: string): Promise<void> {
  let answer = await ours.tool("run_command", { sandbox, command, timeout_seconds: 600 });
  while (/^state: running$/m.test(answer)) {
    const id = /get_result, id ([a-z0-9.-]+)/.exec(answer)?.[1];
    answer = await ours.tool("get_result", { id });
  }
}
