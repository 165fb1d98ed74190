import { join } from "node:path";
import { type TestBed, CONFIGS, serve } from "../bed.ts";
import type { Figure } from "../figure.ts";
import { type Row, interleave, latencyRows } from "../measure.ts";

const SCALES = [10, 100, 1000];

/** Calls of a principal with many sandboxes, against calls of a principal with one sandbox. */
export const scale: Figure = {
  name: "scale",
  baseline: "the same call of ours by a principal with one sandbox",
  async measure(bed, { count }) {
    const many = await startPrincipal(bed, "many");
    const one = await startPrincipal(bed, "one");
    await one.registerSandboxes(1);
    const rows: Row[] = [];
    for (const sandboxes of SCALES) {
      await many.registerSandboxes(sandboxes);
      const times = await interleave(many.list, one.list, { pairs: count(500), warmup: count(100) });
      rows.push(...latencyRows(`list_sandboxes of ${sandboxes}`, times));
      const first = await interleave(many.first, one.first, { pairs: count(10), warmup: 1 });
      rows.push(...latencyRows(`a sandbox made, used and destroyed beside ${sandboxes}`, first));
    }
    await Promise.all([many.close(), one.close()]);
    return rows;
  },
};

/** Starts a separate Worker for a principal. */
async function startPrincipal(bed: TestBed, name: string) {
  const served = await serve(CONFIGS.counted, bed.engine, join(bed.directory, name));
  const ours = served.client;
  const list = () => ours.tool("list_sandboxes", {});
  return {
    list,
    /** Creates, uses and destroys a sandbox. */
    async first(): Promise<void> {
      await ours.tool("run_command", { sandbox: "bench-first", command: "true" });
      await ours.tool("destroy_sandbox", { sandbox: "bench-first" });
    },
    close: () => served.close(),
    /** Adds stopped sandboxes until the principal has this many. */
    async registerSandboxes(sandboxes: number): Promise<void> {
      await fetch(`${served.url}/known?sandboxes=${sandboxes}`, { method: "POST" });
      const listed = await list();
      if (!listed.includes(`Used: ${sandboxes}/`)) throw new Error(listed.slice(-200));
    },
  };
}
