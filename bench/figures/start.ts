import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { bundle } from "../../cli/bundle.ts";
import { PREPARE_MS, CONFIGS, type TestBed, serve, startEngine } from "../bed.ts";
import { bareClient } from "../worker-client.ts";
import type { Figure } from "../figure.ts";
import { type Pairs, interleave, latencyRows, row } from "../measure.ts";

/** The time of the first call in new sandboxes, one at a time, and of their destruction. */
export const freshSandbox: Figure = {
  name: "fresh sandbox",
  baseline:
    "calls of the SDK in a sandbox that is also new: ping, createCodeContext with runCode, and destroy",
  async measure({ ours, bare }, { count }) {
    const pairs = { pairs: count(20), warmup: 2, pauseMs: PREPARE_MS };
    const command = await interleave(
      (index) => ours.tool("run_command", { sandbox: `bench-cmd-${index + 2}`, command: "true" }),
      (index) => bare.call({ sandbox: `bench-cmd-${index + 2}`, method: "ping" }),
      pairs,
    );
    const code = await interleave(
      (index) => ours.tool("run_code", { sandbox: `bench-py-${index + 2}`, code: "1" }),
      async (index) => {
        const sandbox = `bench-py-${index + 2}`;
        const context = String(await bare.call({ sandbox, method: "createCodeContext" }));
        return bare.call({ sandbox, method: "runCode", context, code: "1" });
      },
      pairs,
    );
    const destroyed = await interleave(
      (index) => ours.tool("destroy_sandbox", { sandbox: `bench-cmd-${index + 2}` }),
      (index) => bare.call({ sandbox: `bench-cmd-${index + 2}`, method: "destroy" }),
      { pairs: pairs.pairs, warmup: pairs.warmup },
    );
    for (let index = 0; index < pairs.pairs + pairs.warmup; index++) {
      const sandbox = `bench-py-${index}`;
      await ours.tool("destroy_sandbox", { sandbox });
      await bare.call({ sandbox, method: "destroy" });
    }
    return [
      ...latencyRows("first run_command in a fresh sandbox", command),
      ...latencyRows("first run_code in a fresh sandbox", code),
      ...latencyRows("destroy_sandbox", destroyed),
    ];
  },
};

/** The time from the start of the programs to the first response, the size of a deployment, and the size of the list of tools. */
export const server: Figure = {
  name: "server",
  baseline: "the bare Worker, started and bundled the same way; for tools/list, its limit of 13 KiB",
  async measure(bed, { count }) {
    const bundles = { ours: 0, bare: 0 };
    const times: Pairs = { ours: [], baseline: [] };
    for (let round = 0; round < count(10); round++) {
      for (const [side, into] of [["ours", times.ours] as const, ["bare", times.baseline] as const]) {
        const { milliseconds, gzip } = await measureStart(bed, side, `${side}-${round}`);
        into.push(milliseconds);
        bundles[side] = gzip;
      }
    }
    return [
      ...latencyRows("server start", times),
      row("bundle gzip", "bytes", bundles.ours, bundles.bare),
      row("tools/list", "bytes", (await bed.ours.list()).length, 13 * 1024),
    ];
  },
};

/** Starts an engine and a Worker, waits for the first response, and ends both. */
async function measureStart(
  { directory }: TestBed,
  side: keyof typeof CONFIGS,
  name: string,
): Promise<{ milliseconds: number; gzip: number }> {
  const stateDir = join(directory, name);
  mkdirSync(stateDir);
  const start = performance.now();
  const engine = await startEngine(stateDir);
  const served = await serve(CONFIGS[side], engine, stateDir);
  if (side === "ours") await served.client.tool("list_sandboxes", {});
  else await bareClient(served.url).call({ sandbox: "none", method: "destroy" });
  const milliseconds = performance.now() - start;
  await served.close();
  await engine.close();
  const { modules } = await bundle(CONFIGS[side], join(stateDir, "bundle"));
  return {
    milliseconds,
    gzip: gzipSync(Buffer.concat(modules.map(({ contents }) => Buffer.from(contents)))).length,
  };
}
