import type { TestBed } from "../bed.ts";
import type { Figure } from "../figure.ts";
import { type Row, quantile, row } from "../measure.ts";

/** Each client calls the sandboxes in turn. If there are enough sandboxes, each client starts with a different one. */
const LOADS = [1, 20].flatMap((sandboxes) => [1, 10, 50, 200].map((clients) => ({ clients, sandboxes })));

/** How many windows of measurement each side has, in turns, and the length of a window in milliseconds. */
const WINDOWS = 4;
const WINDOW_MS = 2500;

type Call = (sandbox: string) => Promise<unknown>;

interface Load {
  clients: number;
  sandboxes: number;
}

/** Clients call run_code, each as soon as its last call has returned. On both sides, calls in one kernel wait for each other. */
export const concurrency: Figure = {
  name: "concurrency",
  baseline: "as many clients of the bare Worker, runCode in one context of each sandbox",
  async measure(bed, { quick }) {
    const sides = await prepare(bed, Math.max(...LOADS.map(({ sandboxes }) => sandboxes)));
    const rows: Row[] = [];
    for (const load of LOADS) {
      const results = { ours: emptyResult(), baseline: emptyResult() };
      const milliseconds = quick ? 800 : WINDOW_MS;
      for (let window = 0; window < (quick ? 1 : WINDOWS); window++) {
        await runWindow(sides.ours, load, milliseconds, results.ours);
        await runWindow(sides.bare, load, milliseconds, results.baseline);
      }
      rows.push(...rowsOf(load, results.ours, results.baseline));
    }
    await sides.end();
    return rows;
  },
};

interface Result {
  times: number[];
  errors: number;
  seconds: number;
}

function emptyResult(): Result {
  return { times: [], errors: 0, seconds: 0 };
}

async function runWindow(call: Call, load: Load, milliseconds: number, into: Result): Promise<void> {
  const start = performance.now();
  const client = async (index: number) => {
    for (let turn = index; performance.now() - start < milliseconds; turn++) {
      const sandbox = `bench-load-${turn % load.sandboxes}`;
      const sent = performance.now();
      try {
        await call(sandbox);
        into.times.push(performance.now() - sent);
      } catch {
        into.errors++;
      }
    }
  };
  await Promise.all(Array.from({ length: load.clients }, (_, index) => client(index)));
  into.seconds += (performance.now() - start) / 1000;
}

function rowsOf({ clients, sandboxes }: Load, ours: Result, baseline: Result): Row[] {
  const name = `${clients} client${clients > 1 ? "s" : ""}${sandboxes > 1 ? `, ${sandboxes} sandboxes` : ""}`;
  const successRate = ({ times, errors }: Result) => (100 * times.length) / (times.length + errors);
  const throughput = ({ times, seconds }: Result) => times.length / seconds;
  const rows = [
    row(`${name} throughput`, "calls/s", throughput(ours), throughput(baseline)),
    row(`${name} p50`, "ms", quantile(ours.times, 0.5), quantile(baseline.times, 0.5)),
    row(`${name} p99`, "ms", quantile(ours.times, 0.99), quantile(baseline.times, 0.99)),
  ];
  return [...rows, row(`${name}, calls that succeeded`, "%", successRate(ours), successRate(baseline))];
}

async function prepare({ ours, bare }: TestBed, sandboxes: number) {
  const contexts = new Map<string, string>();
  const names = Array.from({ length: sandboxes }, (_, index) => `bench-load-${index}`);
  for (const sandbox of names) {
    contexts.set(sandbox, String(await bare.call({ sandbox, method: "createCodeContext" })));
    await ours.tool("run_code", { sandbox, code: "1" });
  }
  return {
    ours: (sandbox: string) => ours.tool("run_code", { sandbox, code: "1 + 1" }),
    bare: (sandbox: string) => {
      const context = contexts.get(sandbox) ?? "";
      return bare.call({ sandbox, method: "runCode", context, code: "1 + 1" });
    },
    end: async () => {
      for (const sandbox of names) {
        await ours.tool("destroy_sandbox", { sandbox });
        await bare.call({ sandbox, method: "destroy" });
      }
    },
  };
}
