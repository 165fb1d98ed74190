import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { TestSandbox } from "../../tests/setup/engine-client.ts";
import { PREPARE_MS, type BedEngine, CONFIGS, type TestBed, serve, startEngine } from "../bed.ts";
import type { Figure } from "../figure.ts";
import { type Pairs, type Row, interleave, latencyRows, quantile, row } from "../measure.ts";
import { type WorkerClient, bareClient } from "../worker-client.ts";

/** The time from the request for a sandbox to the result of its first command, as ComputeSDK's public benchmark measures it. */
export const interactive: Figure = {
  name: "time to interactive",
  baseline: "the engine alone, which creates a sandbox and runs the same command",
  async measure(bed, { count, quick }) {
    const rows = await measureInTurn(bed, "with a prepared sandbox", {
      pairs: count(20),
      pauseMs: PREPARE_MS,
    });
    const cold = await withoutPrepared(bed);
    rows.push(...(await measureInTurn(cold, "without a prepared sandbox", { pairs: count(20), pauseMs: 0 })));
    await cold.close();
    for (const sandboxes of quick ? [10] : [10, 50]) rows.push(...(await measureAtOnce(bed, sandboxes)));
    return rows;
  },
};

export interface Sides {
  ours: WorkerClient;
  engine: BedEngine;
}

async function measureInTurn(
  { ours, engine }: Sides,
  name: string,
  size: { pairs: number; pauseMs: number },
): Promise<Row[]> {
  const ends: (() => Promise<unknown>)[] = [];
  const times = await interleave(
    async (index) => void ends.push(await firstCommand(ours, `bench-tti-${index + 2}`)),
    async () => void ends.push(await firstCommandOfEngine(engine)),
    { ...size, warmup: 2, after: async () => void (await ends.pop()?.()) },
  );
  return latencyRows(`in turn, ${name}`, times);
}

/** Starts this many sandboxes at once, first with our Worker, then with the engine alone. */
async function measureAtOnce({ ours, engine }: Sides, sandboxes: number): Promise<Row[]> {
  const pairs: Pairs = {
    ours: await timeAll(sandboxes, (index) => firstCommand(ours, `bench-tti-${index}`)),
    baseline: await timeAll(sandboxes, () => firstCommandOfEngine(engine)),
  };
  const share = (times: number[]) => (times.length / sandboxes) * 100;
  const slowest = row(
    `${sandboxes} at once, the slowest`,
    "ms",
    quantile(pairs.ours, 1),
    quantile(pairs.baseline, 1),
  );
  return [
    ...latencyRows(`${sandboxes} at once`, pairs).filter(({ name }) => name.endsWith("p50")),
    slowest,
    row(`${sandboxes} at once, commands that succeeded`, "%", share(pairs.ours), share(pairs.baseline)),
  ];
}

async function timeAll(
  sandboxes: number,
  start: (index: number) => Promise<() => Promise<unknown>>,
): Promise<number[]> {
  await pause(PREPARE_MS);
  const from = performance.now();
  const times: number[] = [];
  const started = await Promise.allSettled(
    Array.from({ length: sandboxes }, async (_, index) => {
      const end = await start(index);
      times.push(performance.now() - from);
      return end;
    }),
  );
  for (const startResult of started) if (startResult.status === "fulfilled") await startResult.value();
  return times;
}

/** Runs a first command. Returns a function that destroys the sandbox. */
export async function firstCommand(ours: WorkerClient, sandbox: string): Promise<() => Promise<unknown>> {
  await ours.tool("run_command", { sandbox, command: "true" });
  return () => ours.tool("destroy_sandbox", { sandbox });
}

export async function firstCommandOfEngine(engine: BedEngine): Promise<() => Promise<unknown>> {
  const sandbox = await TestSandbox.start(engine);
  // run_command uses this session by default, and its shell is ready.
  await sandbox.run("true", "main");
  return () => sandbox.destroy();
}

/** Both Workers on an engine without a prepared sandbox. */
export async function withoutPrepared({ directory }: TestBed) {
  const stateDir = mkdtempSync(join(directory, "none-prepared-"));
  const engine = await startEngine(stateDir, { prepareSandbox: false });
  const served = await serve(CONFIGS.ours, engine, join(stateDir, "ours"));
  const bare = await serve(CONFIGS.bare, engine, join(stateDir, "bare"));
  return {
    ours: served.client,
    bare: bareClient(bare.url),
    engine,
    async close() {
      await Promise.all([served.close(), bare.close()]);
      await engine.close();
    },
  };
}
