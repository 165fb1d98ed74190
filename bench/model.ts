/**
 * Estimates the cost of a server for many users on Cloudflare: `npx node bench/model.ts`, about five minutes.
 *
 * Counts the operations of three sessions on the local platform, and computes from them the operations of a run, a write, a
 * start and a minute of use. Checks their sum against the operations of random use. docs/reference/costs.md has the result,
 * and the operations that are not counted: restores, and most of the idle minutes.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { bundle } from "../cli/bundle.ts";
import { CONFIGS, serve, startEngine } from "./bed.ts";
import type { Counts } from "./counts.ts";
import { PRICES } from "./figures/cost.ts";
import { closeClients } from "./worker-client.ts";

const MINUTE_MS = 60_000;
/** After this time without calls, containers have stopped: their idle time is one minute here. */
const STOPPED_MS = 2.5 * MINUTE_MS;
const USED_MINUTES = 2;
const CALLS = 16;

/** A month of 1,000 users with five sandboxes each. On every working day, each user works in two of them for a while. */
const MONTH = { users: 1000, days: 22, sessions: 2, minutes: 20, callsAMinute: 4, runs: 0.6, hoursOfDay: 8 };
const IDLE_MINUTES = 10;
/** Instance type standard-1: developers.cloudflare.com/containers/platform/limits. The processor share is an assumption. */
const INSTANCE = { gib: 4, diskGB: 8, busyVCPU: 0.1 };
/** An account's limit of memory, from the same page. */
const ACCOUNT_GIB = 6 * 1024;
/** Dollars for a second of a GiB of memory, a GB of disk, a vCPU, and an actor in memory, which counts as 128 MB. */
const SECOND = { gib: 2.5e-6, disk: 7e-8, vcpu: 2e-5, actor: 0.125 * 12.5e-6 };

const KEYS = Object.keys(PRICES) as (keyof Counts)[];
const mapCounts = (each: (key: keyof Counts) => number): Counts => {
  const counts = { ...PRICES };
  for (const key of KEYS) counts[key] = each(key);
  return counts;
};

const directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-model-"));
const engine = await startEngine(directory);
// Bundled once here, because four Workers start at the same time below.
await bundle(CONFIGS.counted, join(directory, "bundle"));

type Call = (sandbox: string, kind: "run" | "write") => Promise<string>;

/** Counts the operations of this use in a separate Worker, until every container has stopped. */
async function countUse(name: string, use: (call: Call) => Promise<void>): Promise<Counts> {
  const variables = { IDLE_STOP_MINUTES: "1" };
  const { client, url, close } = await serve(CONFIGS.counted, engine, join(directory, name), { variables });
  const { tool } = client;
  let written = 0;
  await use((sandbox, kind) =>
    kind === "run"
      ? tool("run_command", { sandbox: `${name}-${sandbox}`, command: "true" })
      : tool("write_file", { sandbox: `${name}-${sandbox}`, path: "a", content: String(written++) }),
  );
  await pause(STOPPED_MS);
  const counts: Counts = await (await fetch(`${url}/counts`)).json();
  await close();
  return counts;
}

/** Makes calls in one sandbox at even intervals over the given minutes, with the kinds in turn. */
const session = (kinds: ("run" | "write")[], calls: number, minutes: number) => async (call: Call) => {
  for (let made = 0; made < calls; made++) {
    if (made > 0) await pause((minutes * MINUTE_MS) / calls);
    await call("one", kinds[made % kinds.length] ?? "run");
  }
};

/** The totals of the random use. */
const use = { sessions: 0, minutes: 0, runs: 0, writes: 0 };
/** Uses five sandboxes at random. */
async function useAtRandom(call: Call): Promise<void> {
  const useSandbox = async (index: number) => {
    use.sessions++;
    const since = Date.now();
    for (let left = 10 + Math.random() * 10; left > 0; left--) {
      const kind = Math.random() < MONTH.runs ? "run" : "write";
      use[kind === "run" ? "runs" : "writes"]++;
      await call(String(index), kind);
      await pause(Math.random() * 16_000);
    }
    use.minutes += (Date.now() - since) / MINUTE_MS;
  };
  await Promise.all([0, 1, 2, 3, 4].map(useSandbox));
}

const [short, runs, mixed, real] = await Promise.all([
  countUse("short", session(["run"], 1, 0)),
  countUse("runs", session(["run"], CALLS, USED_MINUTES)),
  countUse("mixed", session(["run", "write"], CALLS, USED_MINUTES)),
  countUse("random", useAtRandom),
]);
await engine.close();
closeClients();
rmSync(directory, { recursive: true, force: true });

/** A run costs one request to the Worker, one to a Durable Object, and one row, as the figure `cost` measures. */
const PER_RUN = new Set<keyof Counts>(["worker_requests", "durable_object_requests", "rows_written"]);
const run = mapCounts((key) => (PER_RUN.has(key) ? 1 : 0));
const start = mapCounts((key) => short[key] - run[key]);
const minute = mapCounts((key) => (runs[key] - start[key] - CALLS * run[key]) / USED_MINUTES);
/** A write includes the save that follows it, unless the next write follows within a second or two. */
const write = mapCounts(
  (key) => (mixed[key] - start[key] - USED_MINUTES * minute[key] - (CALLS / 2) * run[key]) / (CALLS / 2),
);
const sum = (of: typeof use) =>
  mapCounts(
    (key) =>
      of.sessions * start[key] + of.minutes * minute[key] + of.runs * run[key] + of.writes * write[key],
  );
const dollars = (counts: Counts) => KEYS.reduce((all, key) => all + counts[key] * PRICES[key], 0);
function printTable(unit: string, times: number, lines: Record<string, Counts>): void {
  console.log(`\n| | ${KEYS.map((key) => key.replaceAll("_", " ")).join(" | ")} | ${unit} |`);
  for (const [name, counts] of Object.entries(lines)) {
    const numbers = KEYS.map((key) => Number(counts[key].toFixed(2)));
    console.log(`| ${name} | ${numbers.join(" | ")} | ${(dollars(counts) * 100 * times).toFixed(3)} |`);
  }
}

/** Simulates 300 days with sessions at random times of the working hours. Returns the most containers that ran at once. */
function peakAtOnce(): number {
  let peak = 0;
  for (let day = 0; day < 300; day++) {
    const starts = Array.from(
      { length: MONTH.users * MONTH.sessions },
      () => Math.random() * MONTH.hoursOfDay * 60,
    ).toSorted((a, b) => a - b);
    let first = 0;
    for (const [index, at] of starts.entries()) {
      while ((starts[first] ?? at) <= at - MONTH.minutes - IDLE_MINUTES) first++;
      peak = Math.max(peak, index - first + 1);
    }
  }
  return peak;
}

printTable("cents for a thousand", 1000, {
  "a run": run,
  "a write with its save": write,
  "a start with its stop": start,
  "a minute of use": minute,
});
printTable("cents", 1, { "random use, by the model": sum(use), "random use, counted": real });

const sessions = MONTH.users * MONTH.days * MONTH.sessions;
const calls = sessions * MONTH.minutes * MONTH.callsAMinute;
const month = sum({
  sessions,
  minutes: sessions * MONTH.minutes,
  runs: calls * MONTH.runs,
  writes: calls * (1 - MONTH.runs),
});
const seconds = sessions * (MONTH.minutes + IDLE_MINUTES) * 60;
const atOnce = (MONTH.users * MONTH.sessions * (MONTH.minutes + IDLE_MINUTES)) / (MONTH.hoursOfDay * 60);
const containers =
  seconds * (INSTANCE.gib * SECOND.gib + INSTANCE.diskGB * SECOND.disk + INSTANCE.busyVCPU * SECOND.vcpu);
console.log(`\na month of ${calls} calls`);
for (const key of KEYS)
  console.log(`  ${key}: ${month[key].toFixed(0)}, $${(month[key] * PRICES[key]).toFixed(2)}`);
console.log(
  `operations $${dollars(month).toFixed(0)}, ${((dollars(month) / calls) * 1e5).toFixed(3)} cents per thousand calls`,
);
console.log(`actors in memory $${(seconds * SECOND.actor).toFixed(0)}, containers $${containers.toFixed(0)}`);
console.log(
  `containers at once: ${atOnce.toFixed(0)} on average, ${peakAtOnce()} in the busiest minute, ${(ACCOUNT_GIB / INSTANCE.gib).toFixed(0)} at most`,
);
