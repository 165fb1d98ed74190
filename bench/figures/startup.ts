import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { runFile } from "../../local/engine/host-programs.ts";
import { quietWrangler } from "../../cli/bundle.ts";
import { root } from "../../cli/program-files.ts";
import { CONFIGS } from "../bed.ts";
import type { Figure } from "../figure.ts";
import { type Pairs, latencyRows } from "../measure.ts";

const wrangler = join(root, "node_modules/wrangler/bin/wrangler.js");

/** The time that each new isolate needs before its first request, to compile and evaluate the Worker's module. */
export const startup: Figure = {
  name: "start-up",
  baseline:
    "the bare Worker's module. Both times count only the samples of `wrangler check startup` in which the processor was busy",
  async measure({ directory }, { count }) {
    const times: Pairs = { ours: [], baseline: [] };
    for (let round = 0; round < count(20); round++) {
      times.ours.push(await activeTime(CONFIGS.ours, join(directory, `ours-${round}.cpuprofile`)));
      times.baseline.push(await activeTime(CONFIGS.bare, join(directory, `bare-${round}.cpuprofile`)));
    }
    return latencyRows("Worker start-up CPU", times);
  },
};

interface Profile {
  nodes: { id: number; callFrame: { functionName: string } }[];
  samples: number[];
  /** Microseconds from the previous sample to each sample. */
  timeDeltas: number[];
}

/** Milliseconds of processor time in which workerd compiled and evaluated a configuration's module. */
async function activeTime(config: string, outfile: string): Promise<number> {
  const args = `--args=-c ${relative(root, config)} --containers-rollout=none`;
  await runFile(process.execPath, [wrangler, "check", "startup", args, "--outfile", outfile], {
    cwd: root,
    env: { ...process.env, ...quietWrangler(outfile.replace(/\.cpuprofile$/, "-build")) },
  });
  const { nodes, samples, timeDeltas }: Profile = JSON.parse(readFileSync(outfile, "utf8"));
  const idle = nodes.find(({ callFrame }) => callFrame.functionName === "(idle)")?.id;
  const active = timeDeltas.filter((_, index) => samples[index] !== idle);
  return active.reduce((sum, delta) => sum + delta, 0) / 1000;
}
