/**
 * Load over time: many clients call the tools for code, commands, files and runs against the parts of `npm start`. Meanwhile this
 * program measures the memory, file descriptors and processes of each part. It prints a table, and exits with 1 if an answer was
 * wrong or a measure grew.
 *
 *   npm run soak                       under a minute, 20 clients
 *   SOAK_MINUTES=60 npm run soak       50 clients
 *   npm run soak -- --write            also writes the table into docs/internals/reliability.md
 *   npm run soak -- --kills            kills sandboxes instead: kills.ts
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CONFIGS, TOKEN, serve, startEngine } from "../../bench/bed.ts";
import { closeClients } from "../../bench/worker-client.ts";
import { PRODUCT_SERVICE, openHeap } from "../../bench/heap.ts";
import { openFiles, type Process, statusNumber, tree } from "../setup/processes.ts";
import type { Result } from "../setup/mcp-client.ts";
import { tool } from "../setup/tool.ts";

if (process.argv.includes("--kills")) {
  await import("./kills.ts");
  process.exit();
}

const MINUTES = Number(process.env.SOAK_MINUTES ?? 0.6);
/** The form of the test suite is short, so it spends little time on the start of sandboxes and on the warm-up. */
const [CLIENTS, SANDBOXES] = MINUTES > 1 ? [50, 5] : MINUTES > 0.1 ? [20, 5] : [10, 2];

/**
 * How much the last quarter may exceed the first, as a fraction and in units, because of noise from collectors and
 * pools.
 */
const SLACK = { "live MiB": [0.25, 16], MiB: [0.25, 48], fds: [0.25, 32], processes: [0.2, 8] } as const;

type Measure = keyof typeof SLACK;

const MEASURES = Object.keys(SLACK) as Measure[];

type Sample = Record<string, Partial<Record<Measure, number>>>;

const PARTS = { workerd: /workerd serve/, engine: /local\/engine\/main\.ts/ } as const;

function measure(pids: readonly number[], processes: number): Sample[string] {
  let kib = 0;
  let fds = 0;
  for (const pid of pids) {
    // A process may have ended.
    kib += statusNumber(pid, "VmRSS") || 0;
    fds += openFiles(pid).length;
  }
  return { MiB: kib / 1024, fds, processes };
}

function sample(root: number): Sample {
  const all = tree(root);
  const countProcesses = (parent: Process) => tree(parent.pid).length;
  const found: Sample = {};
  for (const [part, pattern] of Object.entries(PARTS)) {
    const process = all.find(({ command }) => pattern.test(command) && !/^(\/bin\/)?sh /.test(command));
    if (!process) continue;
    const measured = measure([process.pid], part === "engine" ? countProcesses(process) : 1);
    // V8 keeps pages that it has not collected, so resident memory grows with the calls and says nothing. Instead, the
    // soak measures the live objects of workerd once in each quarter.
    if (part === "workerd") delete measured.MiB;
    found[part] = measured;
  }
  const runtimes = all.filter(({ command }) => /^sbx-control\b/.test(command));
  const oldest = runtimes.toSorted((a, b) => Number(a.started) - Number(b.started))[0];
  if (oldest) found["a sandbox's control server"] = measure([oldest.pid], countProcesses(oldest));
  return found;
}

/** The longest time of a call. A call waits at most for a command of 30 s, so a later response counts as missing. */
const LATE_MS = 180_000;

const MISSING = "There is no";

type Step = (client: number, turn: number) => Promise<[answer: Result, expected: string]>;

/** The mix: each step is one call, and a check of its answer. */
function steps(url: string): Step[] {
  const callTool = (name: string, args: Record<string, unknown>) =>
    tool(url, name, args, { token: TOKEN, signal: AbortSignal.timeout(LATE_MS) }).catch((error: unknown) => {
      throw new Error(`${name} ${JSON.stringify(args).slice(0, 200)}: ${String(error)}`);
    });
  const sandboxOf = (client: number) => `soak-${client % SANDBOXES}`;
  const call = async (expected: string, name: string, args: Record<string, unknown>) =>
    [await callTool(name, args), expected] as [Result, string];
  return [
    (client, turn) =>
      call(`c${client}t${turn}`, "run_command", {
        sandbox: sandboxOf(client),
        session: `s${client}`,
        command: `echo c${client}t${turn}`,
      }),
    (client, turn) =>
      call(`result: ${client * turn}`, "run_code", {
        sandbox: sandboxOf(client),
        context: `k${client % 2}`,
        code: `${client} * ${turn}`,
      }),
    (client, turn) =>
      call("20000 bytes", "write_file", {
        sandbox: sandboxOf(client),
        path: `f${client}`,
        content: `${turn % 10}`.repeat(20_000),
      }),
    (client) =>
      call("0", "read_file", {
        sandbox: sandboxOf(client),
        path: `f${client}`,
        limit: 1,
        encoding: "base64",
      }),
    (client) => call(`f${client}`, "list_files", { sandbox: sandboxOf(client), limit: 1000 }),
    async (client) => {
      const started = await callTool("run_command", {
        sandbox: sandboxOf(client),
        session: `s${client}`,
        command: "seq 1 20000",
        wait_seconds: 0,
      });
      return call("20000", "get_result", { id: started.structured.id });
    },
    (client) => call("command", "list_runs", { sandbox: sandboxOf(client), limit: 10 }),
    (client) => call(sandboxOf(client), "list_sandboxes", {}),
    (client) =>
      call("no such", "read_file", { sandbox: sandboxOf(client), path: "missing/file" }).then(([answer]) => [
        answer,
        MISSING,
      ]),
    async (client) => {
      const started = await callTool("run_command", {
        sandbox: sandboxOf(client),
        session: `x${client}`,
        command: "sleep 30",
        wait_seconds: 0,
      });
      return call("cancelled", "cancel_run", { id: started.structured.id });
    },
  ];
}

/** The current step, for the error if the soak does not end. */
let stage = "starts";

/** The time in addition to the planned minutes, milliseconds: many times the usual time. */
const EXTRA_MS = 300_000;

setTimeout(
  () => {
    console.error(`The soak did not end: it ${stage}.`);
    // The engine and workerd end with this process.
    process.exit(1);
  },
  MINUTES * 60_000 + EXTRA_MS,
).unref();

/** Runs the soak. Returns the number of calls, the errors and the measures of each quarter. */
async function soak(): Promise<{ calls: number; errors: string[]; quarters: Sample[] }> {
  const directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-soak-"));
  const engine = await startEngine(directory);
  stage = "starts its Worker";
  const server = await serve(CONFIGS.ours, engine, join(directory, "state"), { inspector: true });
  stage = "looks for the inspector";
  const heap = await openHeap(server, PRODUCT_SERVICE);
  const mix = steps(`${server.url}/mcp`);
  const errors: string[] = [];
  let calls = 0;
  const client = async (number: number, until: () => boolean) => {
    for (let turn = 0; !until(); turn++) {
      // At first every client makes all steps in order, because one step reads the file that another writes. Later each
      // client is at a different step.
      const step = mix[(turn < 10 ? turn : turn + number) % mix.length];
      try {
        const [answer, expected] = (await step?.(number, turn)) ?? [];
        calls++;
        if (answer && expected !== undefined && !isRight(answer, expected))
          errors.push(`client ${number}, turn ${turn}: no "${expected}" in ${answer.text.slice(0, 300)}`);
      } catch (error) {
        errors.push(`client ${number}, turn ${turn}: ${String(error)}`);
      }
      if (errors.length > 50) return;
    }
  };
  const all = (until: () => boolean) =>
    Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number, until)));
  try {
    // Everything is started before the first measurement.
    stage = "warms up";
    let turns = 0;
    await all(() => turns++ > CLIENTS * 15);
    const quarters: Sample[] = [];
    for (let quarter = 0; quarter < 4; quarter++) {
      stage = `measures quarter ${quarter + 1}`;
      const samples: Sample[] = [];
      const endAt = Date.now() + MINUTES * 15_000;
      const timer = setInterval(() => samples.push(sample(process.pid)), Math.max(250, MINUTES * 200));
      await all(() => Date.now() > endAt);
      clearInterval(timer);
      const middle = medians(samples);
      // The number of processes under load depends on the calls at that moment.
      for (const [part, { processes = 0 }] of Object.entries(sample(process.pid)))
        middle[part] = { ...middle[part], processes };
      middle.workerd = { "live MiB": await heap.live(), ...middle.workerd };
      quarters.push(middle);
    }
    return { calls, errors, quarters };
  } finally {
    heap.close();
    closeClients();
    stage = "closes its Worker";
    await server.close();
    stage = "closes its engine";
    await engine.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Only a read of the missing file may be an error. */
function isRight({ isError, text }: Result, expected: string): boolean {
  return text.includes(expected) && isError === (expected === MISSING);
}

/** The median of each measure. */
function medians(samples: readonly Sample[]): Sample {
  const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
  const found: Sample = {};
  for (const [name, first] of Object.entries(samples[0] ?? {})) {
    found[name] = {};
    for (const measured of MEASURES)
      if (measured in first) found[name][measured] = median(samples.map((one) => one[name]?.[measured] ?? 0));
  }
  return found;
}

const { calls, errors, quarters } = await soak();
const grown: string[] = [];
const lines = [
  `${calls} calls by ${CLIENTS} clients in ${MINUTES} minutes, ${errors.length} wrong answers`,
  "",
  "| part | measure | quarter 1 | 2 | 3 | 4 |",
  "| --- | --- | --: | --: | --: | --: |",
];
for (const [name, first] of Object.entries(quarters[0] ?? {}))
  for (const measured of MEASURES) {
    const start = first[measured];
    if (start === undefined) continue;
    const [share, units] = SLACK[measured];
    const row = quarters.map((quarter) => quarter[name]?.[measured] ?? 0);
    lines.push(`| ${name} | ${measured} | ${row.map((value) => Math.round(value)).join(" | ")} |`);
    const last = row.at(-1) ?? 0;
    if (last > start + Math.max(units, start * share)) grown.push(`${name}: ${measured}`);
  }
console.log(lines.join("\n"));
if (process.argv.includes("--write")) {
  const page = new URL("../../docs/internals/reliability.md", import.meta.url);
  const between = /(<!-- soak:start[^>]*-->\n)[^]*(\n<!-- soak:end -->)/;
  const today = new Date().toISOString().slice(0, 10);
  const table = `\nWritten on ${today}: ${lines.join("\n")}\n`;
  writeFileSync(
    page,
    readFileSync(page, "utf8").replace(between, (_all, start, end) => start + table + end),
  );
}
for (const error of errors.slice(0, 10)) console.error(error);
for (const grownMeasure of grown) console.error(`Grew from the first quarter to the last: ${grownMeasure}`);
if (quarters.some((quarter) => Object.keys(quarter).length < 3)) grown.push("something was not measured");
process.exitCode = errors.length > 0 || grown.length > 0 ? 1 : 0;
