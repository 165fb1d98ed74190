import { join } from "node:path";
import { type TestBed, CONFIGS, serve } from "../bed.ts";
import type { WorkerClient } from "../worker-client.ts";
import type { Figure } from "../figure.ts";
import { type Pairs, type Row, interleave, latencyRows } from "../measure.ts";

const FULL = 10_000;

/** Concurrent calls while the history is made. */
const CONCURRENT_CALLS = 16;

/** Calls in a sandbox with thousands of finished runs, against calls in a sandbox with 20. */
export const history: Figure = {
  name: "history",
  baseline: "the same call in a sandbox of ours with 20 finished runs",
  async measure(bed, { count }) {
    const { ours } = bed;
    const total = count(FULL);
    const [long, short] = ["bench-long", "bench-short"];
    await makeRuns(ours, long, total);
    await makeRuns(ours, short, 20);
    const pairs = { pairs: count(200), warmup: count(50) };
    const rows: Row[] = [];
    const compare = async (name: string, call: (sandbox: string) => Promise<unknown>) => {
      const times = await interleave(
        () => call(long),
        () => call(short),
        pairs,
      );
      rows.push(...latencyRows(`${name} after ${total} runs`, times));
    };
    await compare("list_runs", (sandbox) => ours.tool("list_runs", { sandbox }));
    const ids = new Map<string, string>();
    for (const sandbox of [long, short])
      ids.set(sandbox, newestRun(await ours.tool("list_runs", { sandbox })));
    await compare("get_result", (sandbox) => ours.tool("get_result", { id: ids.get(sandbox) }));
    await compare("run_code", (sandbox) => ours.tool("run_code", { sandbox, code: "1 + 1" }));
    return [...rows, ...(await firstCalls(bed, total, count(10)))];
  },
};

/** Times the first call after a restart of the Worker: the sandbox's new actor finds the earlier runs. */
async function firstCalls(bed: TestBed, total: number, rounds: number): Promise<Row[]> {
  const stateDir = join(bed.directory, "history");
  const [long, short] = ["bench-long", "bench-short"];
  const times: Pairs = { ours: [], baseline: [] };
  for (let round = -1; round < rounds; round++) {
    const { client: ours, close } = await serve(CONFIGS.ours, bed.engine, stateDir);
    if (round < 0) {
      await makeRuns(ours, long, total);
      await makeRuns(ours, short, 20);
    } else {
      await ours.tool("list_sandboxes", {});
      const sides = [[long, times.ours] as const, [short, times.baseline] as const];
      for (const [sandbox, into] of round % 2 ? sides : sides.toReversed()) {
        const start = performance.now();
        await ours.tool("list_runs", { sandbox });
        into.push(performance.now() - start);
      }
    }
    await close();
  }
  return latencyRows(`first call of an actor with ${total} runs`, times);
}

async function makeRuns(ours: WorkerClient, sandbox: string, total: number): Promise<void> {
  let made = 0;
  const work = async () => {
    while (made++ < total) await ours.tool("run_code", { sandbox, code: "1" });
  };
  await Promise.all(Array.from({ length: CONCURRENT_CALLS }, work));
}

function newestRun(list: string): string {
  const id = /^bench-[a-z]+\.[a-z0-9]+/m.exec(list)?.[0];
  if (id === undefined) throw new Error(`no run in ${list.slice(0, 200)}`);
  return id;
}
