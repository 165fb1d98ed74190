/** Writes the results: bench/results.json, and a part of them into docs/internals/performance.md. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import type { Figure } from "./figure.ts";
import type { Row } from "./measure.ts";

const RESULTS = new URL("results.json", import.meta.url);
const PAGE = new URL("../docs/internals/performance.md", import.meta.url);

const DAY_LENGTH = "2026-11-22".length;

interface FigureResult {
  figure: Figure;
  rows: Row[];
}

/** Replaces the stored rows of the measured figure, and drops the rows of figures that no longer exist. */
export function writeResults({ figure, rows }: FigureResult, figures: readonly Figure[]): void {
  const stored = readResults().filter((row) => row.figure !== figure.name);
  const measured = `${new Date().toISOString().slice(0, 10)} at ${currentCommit()}`;
  const measuredRows = rows.map((row) => Object.assign({ figure: figure.name, measured }, row));
  const lines = figures
    .flatMap(({ name }) => [...stored, ...measuredRows].filter((row) => row.figure === name))
    .map((row) => `  ${JSON.stringify(row)}`);
  writeFileSync(RESULTS, `[\n${lines.join(",\n")}\n]\n`);
}

interface StoredRow extends Row {
  figure: string;
  /** The day and, if known, the commit of the measurement. */
  measured: string;
}

function readResults(): StoredRow[] {
  try {
    return JSON.parse(readFileSync(RESULTS, "utf8"));
  } catch {
    return [];
  }
}

/** Rows that only bench/results.json has: p99, peaks of memory, times beside a throughput, costs (docs/reference/costs.md). */
const DETAILS = [/ p99$/, /\bpeak\b/, /^\d+ clients?\b.* p50$/, /^\d+ at once p50$/, / against tar$/, /: /];

function isOnPage({ name, unit, ours }: Row): boolean {
  const isSuccess = unit === "%" && ours === 100;
  return !isSuccess && !DETAILS.some((detail) => detail.test(name));
}

/** Writes a table of the results into the page. After a measurement, `isMeasured` also replaces the machine's line. */
export function writePage(figures: readonly Figure[], { isMeasured }: { isMeasured: boolean }): void {
  const rows = readResults();
  const groups = figures.flatMap(({ name, baseline }) => {
    const figureRows = rows.filter((row) => row.figure === name && isOnPage(row));
    if (figureRows.length === 0) return [];
    const days = [...new Set(figureRows.map(({ measured: day }) => day.slice(0, DAY_LENGTH)))];
    return [`| **${name}**, ${days.join(", ")}. Baseline: ${baseline} | | | |`, ...figureRows.map(line)];
  });
  const table = ["| figure | ours | baseline | ratio |", "| --- | --: | --: | --: |", ...groups].join("\n");
  const page = readFileSync(PAGE, "utf8");
  const stated = isMeasured ? undefined : /^Machine: .*$/m.exec(page)?.[0];
  const text = [stated ?? machine(), table].join("\n\n");
  writeFileSync(
    PAGE,
    page.replace(/(<!-- bench:start[^>]*-->\n)[\s\S]*?(<!-- bench:end -->)/, (_all, start, end) => {
      return `${start}\n${text}\n\n${end}`;
    }),
  );
}

function line({ name, unit, ours, baseline, ratio }: Row): string {
  return `| ${name.replace(/ p50$/, "")}, ${unit} | ${rounded(ours)} | ${rounded(baseline)} | ${rounded(ratio)} |`;
}

/** Three digits, or more for a large number. */
function rounded(value: number): number {
  return Math.abs(value) < 1000 ? Number(value.toPrecision(3)) : Math.round(value);
}

function currentCommit(): string {
  return execFileSync("git", ["rev-parse", "--short", "HEAD"], {
    cwd: new URL(".", import.meta.url),
    encoding: "utf8",
  }).trim();
}

function machine(): string {
  const [first] = cpus();
  const gigabytes = Math.round(totalmem() / 2 ** 30);
  return `Machine: ${cpus().length} cores (${first?.model.trim() ?? "unknown"}), ${gigabytes} GiB, Node ${process.versions.node}.`;
}
