import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { CONFIGS, serve } from "../bed.ts";
import type { Counts } from "../counts.ts";
import type { Figure } from "../figure.ts";
import { type Row, row } from "../measure.ts";
import { printCommand } from "./output.ts";

/**
 * The price in dollars of one operation that a plan does not include, in 2026:
 *
 * - https://developers.cloudflare.com/workers/platform/pricing
 * - https://developers.cloudflare.com/durable-objects/platform/pricing
 * - https://developers.cloudflare.com/r2/pricing
 */
export const PRICES: Record<keyof Counts, number> = {
  worker_requests: 0.3e-6,
  durable_object_requests: 0.15e-6,
  rows_read: 0.001e-6,
  rows_written: 1e-6,
  r2_class_a: 4.5e-6,
  r2_class_b: 0.36e-6,
};

const NAMES: [keyof Counts, string][] = [
  ["durable_object_requests", "Durable Object requests"],
  ["rows_read", "SQLite rows read"],
  ["rows_written", "SQLite rows written"],
  ["r2_class_a", "R2 class A operations"],
  ["r2_class_b", "R2 class B operations"],
];

/** The fewest operations of a call that reaches the actor: one request to the Worker and one to the Durable Object. */
const LEAST: Partial<Counts> = { worker_requests: 1, durable_object_requests: 1 };

/** The longest that the server takes to write the records of a run after the run's call, in milliseconds. */
const SETTLE_MS = 1500;

const LONG_OUTPUT = 5_000_000;

/** The billed operations of a call, without CPU time, the actor's duration and the container. */
export const cost: Figure = {
  name: "cost",
  baseline:
    "the price of one Worker request and one Durable Object request; for a count, 1. Processor time, the actor's duration and the container are extra",
  async measure(bed, { count }) {
    const calls = count(200);
    const served = await serve(CONFIGS.counted, bed.engine, join(bed.directory, "counted"));
    const ours = served.client;
    const sandbox = "bench-cost";
    await ours.tool("run_command", { sandbox, command: "echo one" });
    await ours.tool("run_code", { sandbox, code: "1" });
    await ours.tool("write_file", { sandbox, path: "a", content: "a" });
    const [id] = /^bench-cost\.\w+/m.exec(await ours.tool("list_runs", { sandbox })) ?? [];
    const rows: Row[] = [];
    const kinds: [string, () => Promise<unknown>][] = [
      ["run_code", () => ours.tool("run_code", { sandbox, code: "1 + 1" })],
      ["run_command", () => ours.tool("run_command", { sandbox, command: "true" })],
      [
        "run_command of 5 MB",
        () => ours.tool("run_command", { sandbox, command: printCommand(LONG_OUTPUT) }),
      ],
      ["read_file", () => ours.tool("read_file", { sandbox, path: "a" })],
      ["write_file", () => ours.tool("write_file", { sandbox, path: "a", content: "a" })],
      ["get_result", () => ours.tool("get_result", { id })],
      ["list_runs", () => ours.tool("list_runs", { sandbox })],
    ];
    for (const [name, call] of kinds)
      rows.push(...(await costOf(name, name.endsWith("MB") ? count(20) : calls, call, served.url)));
    await served.close();
    return rows;
  },
};

async function costOf(
  name: string,
  calls: number,
  call: () => Promise<unknown>,
  url: string,
): Promise<Row[]> {
  const take = async (): Promise<Counts> => {
    await pause(SETTLE_MS);
    return (await fetch(`${url}/counts`)).json() as Promise<Counts>;
  };
  await call();
  await take();
  for (let made = 0; made < calls; made++) await call();
  const counts = await take();
  const dollars = (each: Partial<Counts>) =>
    Object.entries(PRICES).reduce((sum, [key, price]) => sum + (each[key as keyof Counts] ?? 0) * price, 0);
  const counted = NAMES.map(([key, label]) => row(`${name}: ${label}`, "per call", counts[key] / calls, 1));
  return [
    ...counted,
    row(`${name}: cost`, "cents per thousand calls", (dollars(counts) / calls) * 1e5, dollars(LEAST) * 1e5),
  ];
}
