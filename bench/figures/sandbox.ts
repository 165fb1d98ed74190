import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { PREPARE_MS, startEngine, type TestBed } from "../bed.ts";
import type { Figure } from "../figure.ts";
import { type Row, interleave, latencyRows, quantile, row } from "../measure.ts";
import { processesWith, pssMiB } from "../process-memory.ts";
import { type Sides, firstCommand, firstCommandOfEngine, withoutPrepared } from "./interactive.ts";

/** The goals for the processor time of a start and for the memory of an idle sandbox. They are the baselines. */
const GOAL_MS = 200;
const GOAL_MIB = 35;
/** The longest that the work of a sandbox's start continues after its first command, in milliseconds. */
const SETTLE_MS = 1000;
/** The groups of version 1 that count processor time. */
const PROCESSOR_TIMES = "/sys/fs/cgroup/cpuacct";

/** What one sandbox costs: its whole life, its first code, its processor time and its memory. */
export const sandboxFigure: Figure = {
  name: "one sandbox",
  baseline:
    "the engine alone; for code, createCodeContext with runCode on the same engine; for processor time and memory, the goal. Processor time needs root and control groups of version 1",
  async measure(bed, { count }) {
    const pairs = count(20);
    const rows = await measureLives(bed, "with a prepared sandbox", { pairs, pauseMs: PREPARE_MS });
    const cold = await withoutPrepared(bed);
    rows.push(...(await measureLives(cold, "without a prepared sandbox", { pairs, pauseMs: 0 })));
    rows.push(...(await firstCode(cold, pairs)));
    rows.push(...(await processorTime(bed, pairs)), await memory(cold, count(5)));
    await cold.close();
    return rows;
  },
};

async function measureLives(
  { ours, engine }: Sides,
  name: string,
  size: { pairs: number; pauseMs: number },
): Promise<Row[]> {
  const times = await interleave(
    async (index) => (await firstCommand(ours, `bench-life-${index + 2}`))(),
    async () => (await firstCommandOfEngine(engine))(),
    { ...size, warmup: 2 },
  );
  return latencyRows(`create, true, destroy, ${name}`, times);
}

type Cold = Awaited<ReturnType<typeof withoutPrepared>>;

async function firstCode({ ours, bare }: Cold, pairs: number): Promise<Row[]> {
  const ends: (() => Promise<unknown>)[] = [];
  const times = await interleave(
    async (index) => {
      const sandbox = `bench-code-${index + 2}`;
      await ours.tool("run_code", { sandbox, code: "1" });
      ends.push(() => ours.tool("destroy_sandbox", { sandbox }));
    },
    async (index) => {
      const sandbox = `bench-code-${index + 2}`;
      const context = String(await bare.call({ sandbox, method: "createCodeContext" }));
      await bare.call({ sandbox, method: "runCode", context, code: "1" });
      ends.push(() => bare.call({ sandbox, method: "destroy" }));
    },
    { pairs, warmup: 2, after: async () => void (await ends.pop()?.()) },
  );
  return latencyRows("first run_code, without a prepared sandbox", times);
}

/**
 * The processor time of an engine and of everything in a sandbox, from its start to its end. The engine starts in a control group, because it
 * makes the groups of its sandboxes inside its own group.
 */
async function processorTime({ directory }: TestBed, times: number): Promise<Row[]> {
  const group = `${PROCESSOR_TIMES}/sandbox-mcp-bench-${process.pid}`;
  try {
    mkdirSync(group);
  } catch {
    return [];
  }
  const moveTo = (to: string) => writeFileSync(`${to}/cgroup.procs`, String(process.pid));
  moveTo(group);
  const starting = startEngine(mkdtempSync(join(directory, "counted-")), { prepareSandbox: false });
  const engine = await starting.finally(() => moveTo(PROCESSOR_TIMES));
  const used: number[] = [];
  for (let index = 0; index < times; index++) {
    const before = Number(readFileSync(`${group}/cpuacct.usage`, "utf8"));
    await (
      await firstCommandOfEngine(engine)
    )();
    await pause(SETTLE_MS);
    used.push((Number(readFileSync(`${group}/cpuacct.usage`, "utf8")) - before) / 1e6);
  }
  await engine.close();
  rmdirSync(group);
  return [row("processor time of a start", "ms", quantile(used, 0.5), GOAL_MS)];
}

async function memory({ engine }: Cold, times: number): Promise<Row> {
  const used: number[] = [];
  for (let index = 0; index < times; index++) {
    const end = await firstCommandOfEngine(engine);
    await pause(SETTLE_MS);
    used.push(processesWith(/^sbxd$/, engine.pid).reduce((sum, { pid }) => sum + pssMiB(pid), 0));
    await end();
  }
  return row("memory without kernels (PSS)", "MiB", quantile(used, 0.5), GOAL_MIB);
}
