/** Writes the results: bench/results.json, and the tables of docs/internals/performance.md. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { charts } from "./chart.ts";
import type { Figure } from "./figure.ts";
import type { Row } from "./measure.ts";

const RESULTS = new URL("results.json", import.meta.url);
const PAGE = new URL("../docs/internals/performance.md", import.meta.url);

interface FigureResult {
  figure: Figure;
  rows: Row[];
}

/** Replaces the stored rows of the measured figure, and drops the rows of figures that no longer exist. */
export function writeResults({ figure, rows }: FigureResult, figures: readonly Figure[]): void {
  const stored = readResults().filter((row) => row.figure !== figure.name);
  const measured = `${new Date().toISOString().slice(0, 10)} at ${commit()}`;
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
  /** The baseline with which the row was measured, if the figure has another one now. */
  oldBaseline?: string;
}

function readResults(): StoredRow[] {
  try {
    return JSON.parse(readFileSync(RESULTS, "utf8"));
  } catch {
    return [];
  }
}

/** Writes charts and tables of all results into the page. After a measurement, `measured` also replaces the machine's line. */
export function writePage(figures: readonly Figure[], { measured }: { measured: boolean }): void {
  const rows = readResults();
  const tables = figures.flatMap(({ name, baseline }) => {
    const figureRows = rows.filter(({ figure }) => figure === name);
    if (figureRows.length === 0) return [];
    const days = [...new Set(figureRows.map(({ measured: day }) => day))];
    const old = figureRows.find(({ oldBaseline }) => oldBaseline !== undefined)?.oldBaseline;
    const note = old === undefined ? "" : `\n\nThese figures are older: their baseline is ${old}.`;
    return [
      `### ${name}\n\nMeasured on ${days.join(", ")}. Baseline: ${baseline}.${note}\n\n| figure | ours | baseline | ratio | spread |\n| --- | --: | --: | --: | --: |\n${figureRows.map(line).join("\n")}`,
    ];
  });
  const page = readFileSync(PAGE, "utf8");
  const stated = measured ? undefined : /^Machine: .*$/m.exec(page)?.[0];
  const text = [stated ?? machine(), ...charts(rows), ...tables].join("\n\n");
  writeFileSync(
    PAGE,
    page.replace(/(<!-- bench:start[^>]*-->\n)[\s\S]*?(<!-- bench:end -->)/, (_all, start, end) => {
      return `${start}\n${text}\n\n${end}`;
    }),
  );
}

function line({ name, unit, ours, baseline, ratio, spread }: Row): string {
  const cells = [
    name,
    `${ours} ${unit}`,
    `${baseline} ${unit}`,
    String(ratio),
    spread ? spread.join(" to ") : "",
  ];
  return `| ${cells.join(" | ")} |`;
}

function commit(): string {
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
